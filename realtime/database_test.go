package realtime_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
	"github.com/sluice-dev/sluice/wal"
)

// pipe is a server behind the log of a database of its own, as cmd/sluice wires
// it.
type pipe struct {
	*world
	db     *pgtest.DB
	reader *wal.Reader

	streamLogs logBuffer // of reader and feed
}

func newPipe(t testing.TB, db *pgtest.DB, change ...func(*realtime.Config)) *pipe {
	t.Helper()
	p := &pipe{db: db}
	log := slog.New(slog.NewTextHandler(&p.streamLogs, nil))
	var feed *changes.Service
	var err error
	p.reader, err = wal.New(wal.Config{
		URL: db.URL("supabase_admin"), Slot: "sluice_" + db.Name, Logger: log,
		Handle:   func(ctx context.Context, b sluice.ChangeBatch) error { return feed.Handle(ctx, b) },
		Messages: func(ctx context.Context, b sluice.ChangeBatch) error { return p.bus.PublishMessages(ctx, b) },
	})
	if err != nil {
		t.Fatal(err)
	}
	feed, err = changes.New(changes.Config{
		Admin: db.Pool("supabase_admin"), User: db.Pool("authenticator"), Stream: p.reader, Logger: log, CheckTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	change = append([]func(*realtime.Config){func(cfg *realtime.Config) {
		cfg.Admin, cfg.Feed, cfg.Stream = db.Pool("supabase_admin"), feed, p.reader
	}}, change...)
	p.world = newPrivateWorld(t, db, change...)
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	for _, run := range []func(context.Context) error{p.reader.Run, feed.Run} {
		ended.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(func() { p.stop(); cancel(); ended.Wait() })
	p.live()
	return p
}

// newPrivateWorld is a server on whose private channels everybody may read and
// write.
func newPrivateWorld(t testing.TB, db *pgtest.DB, change ...func(*realtime.Config)) *world {
	t.Helper()
	db.ExecAs("postgres", `
create policy everybody_reads on realtime.messages for select to anon using (true);
create policy everybody_writes on realtime.messages for insert to anon with check (true)`)
	users := func(cfg *realtime.Config) { cfg.Users = db.Pool("authenticator") }
	return newWorld(t, append([]func(*realtime.Config){users}, change...)...)
}

// live waits until the log is read.
func (p *pipe) live() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := p.reader.Live(ctx); err != nil {
		p.t.Fatalf("Live: %v (%v)", err, p.reader.State().Err)
	}
}

// until waits, in real time, for a condition that nothing announces.
func (w *world) until(ok func() bool) {
	w.t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-look.C:
		case <-deadline:
			w.t.Fatal("it has not come about within 20 s")
		}
	}
}

const (
	publicJoin  = `{"config":{}}`
	privateJoin = `{"config":{"private":true}}`
)

// on returns a client that has joined realtime:TOPIC, in real time.
func (p *pipe) on(v phoenix.Version, topic, payload string) *client {
	p.t.Helper()
	c := p.connect(v)
	c.joinNow(topic, payload)
	return c
}

// joinNow joins in real time and fails the test unless the reply is ok.
func (c *client) joinNow(topic, payload string) string {
	c.t.Helper()
	ref := c.join("realtime:"+topic, payload)
	if m := c.next(); m.Event != "phx_reply" || !strings.Contains(string(m.Payload), `"status":"ok"`) {
		c.t.Fatalf("join %s: %v", topic, m)
	}
	return ref
}

// row is a broadcast of a row as a client of either version reads it.
type row struct {
	Topic, Event, Payload, Meta string
	Binary, Text                bool // of the payload; of the frame
}

// broadcast reads a text or kind 4 broadcast, with null references.
func (m msg) broadcast(t testing.TB) row {
	t.Helper()
	if f := m.Binary; f != nil {
		if len(f) < 5 || f[0] != 4 {
			t.Fatalf("frame %q is not of kind 4", f)
		}
		r := row{Binary: f[4] == 0}
		rest := f[5:]
		for i, to := range []*string{&r.Topic, &r.Event, &r.Meta} {
			n := int(f[1+i])
			*to, rest = string(rest[:n]), rest[n:]
		}
		r.Payload = string(rest)
		return r
	}
	var p struct {
		Type, Event   string
		Payload, Meta json.RawMessage
	}
	if err := json.Unmarshal(m.Payload, &p); err != nil || m.Event != "broadcast" || p.Type != "broadcast" || m.Ref != nil {
		t.Fatalf("not a broadcast: %v", m)
	}
	return row{Topic: m.Topic, Event: p.Event, Payload: string(p.Payload), Meta: string(p.Meta), Text: true}
}

// nextRow waits for a live broadcast, whose references are null.
func (c *client) nextRow() row {
	c.t.Helper()
	m := c.next()
	if m.JoinRef != nil {
		c.t.Errorf("join_ref of a live broadcast: %v", m)
	}
	r := m.broadcast(c.t)
	if c.vsn == phoenix.V2 && r.Text {
		c.t.Errorf("a live broadcast came as text: %v", m)
	}
	return r
}

// query returns one text.
func (p *pipe) query(sql string, args ...any) (s string) {
	p.t.Helper()
	if err := p.db.Admin().QueryRow(context.Background(), sql, args...).Scan(&s); err != nil {
		p.t.Fatalf("%v: %s", err, sql)
	}
	return s
}

func meta(id string) string { return `{"id":"` + id + `"}` }

func versions(t *testing.T, fn func(t *testing.T, v phoenix.Version)) {
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		t.Run(fmt.Sprintf("vsn=%d.0.0", v), func(t *testing.T) {
			t.Parallel()
			fn(t, v)
		})
	}
}

// spec: realtime:91 pgchanges:103 pgchanges:104
func TestRowsReachTheirTopic(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v phoenix.Version) {
		p := newPipe(t, pgtest.New(t))
		private, public := p.on(v, "room", privateJoin), p.on(v, "room", publicJoin)
		p.db.ExecAs("postgres", `select realtime.send('{"a":1}', 'secret', 'room'); select realtime.send('{"a":2}', 'open', 'room', false)`)
		for name, c := range map[string]*client{"secret": private, "open": public} {
			id := p.query("select id::text from realtime.messages where event = $1", name)
			want := row{Topic: "realtime:room", Event: name, Payload: `{"a": 1, "id": "` + id + `"}`, Meta: meta(id), Text: v == phoenix.V1}
			if name == "open" {
				want.Payload = strings.Replace(want.Payload, `"a": 1`, `"a": 2`, 1)
			}
			if diff := cmp.Diff(want, c.nextRow()); diff != "" {
				t.Error(name, diff)
			}
		}

		p.db.ExecAs("postgres", `
create table notes (id int primary key, body text);
create function tell() returns trigger language plpgsql security definer as $$
begin perform realtime.broadcast_changes('room', TG_OP, TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, new, old, TG_LEVEL); return null; end $$;
create trigger tell after insert or update or delete on notes for each row execute function tell()`)
		p.db.ExecAs("postgres", "insert into notes values (1, 'a'); update notes set body = 'b'; delete from notes")
		type body struct {
			ID, Operation, Schema, Table string
			Record, OldRecord            map[string]any
		}
		a, b := map[string]any{"id": 1.0, "body": "a"}, map[string]any{"id": 1.0, "body": "b"}
		for _, want := range []body{
			{Operation: "INSERT", Schema: "public", Table: "notes", Record: a},
			{Operation: "UPDATE", Schema: "public", Table: "notes", Record: b, OldRecord: a},
			{Operation: "DELETE", Schema: "public", Table: "notes", OldRecord: b},
		} {
			r := private.nextRow()
			var got body
			keys := map[string]json.RawMessage{}
			if err := json.Unmarshal([]byte(r.Payload), &keys); err != nil || len(keys) != 6 {
				t.Fatalf("payload %s: %v", r.Payload, err)
			}
			_ = json.Unmarshal([]byte(r.Payload), &got) // read above
			_ = json.Unmarshal(keys["old_record"], &got.OldRecord)
			if r.Meta != meta(got.ID) || r.Event != want.Operation {
				t.Errorf("event %s, meta %s, id %s", r.Event, r.Meta, got.ID)
			}
			got.ID = ""
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// Rows come in the order of their insertion, however many a transaction has, and
// rows of other topics do not matter. A row may be inserted by hand.
//
// spec: pgchanges:105 pgchanges:116
func TestRowsOfOneTransaction(t *testing.T) {
	t.Parallel()
	p := newPipe(t, pgtest.New(t))
	const topic = "0123456789abcdef" // 16 bytes, as many as a UUID
	c := p.on(phoenix.V2, topic, publicJoin)
	const n = 1000 // several batches
	p.db.ExecAs("postgres", fmt.Sprintf(`
insert into realtime.messages (topic, extension, event, payload, private)
select t, 'anything', 'ev', to_jsonb(g), false from generate_series(1, %d) g, unnest(array['%s', 'other']) t order by g`, n, topic))
	for i := 1; i <= n; i++ {
		if r := c.nextRow(); r.Payload != fmt.Sprint(i) || r.Topic != "realtime:"+topic {
			t.Fatalf("row %d: %+v", i, r)
		}
	}
}

// spec: realtime:92 pgchanges:108
func TestBinaryRows(t *testing.T) {
	t.Parallel()
	p := newPipe(t, pgtest.New(t))
	old, current := p.on(phoenix.V1, "room", privateJoin), p.on(phoenix.V2, "room", privateJoin)
	p.db.ExecAs("postgres", `select realtime.send_binary('\x00ff22', 'bin', 'room'); select realtime.send_binary('', 'empty', 'room'); select realtime.send('{}', 'text', 'room')`)
	id := func(event string) string {
		return p.query("select id::text from realtime.messages where event = $1", event)
	}
	for _, want := range []row{
		{Topic: "realtime:room", Event: "bin", Payload: "\x00\xff\"", Meta: meta(id("bin")), Binary: true},
		{Topic: "realtime:room", Event: "empty", Meta: meta(id("empty")), Binary: true},
	} {
		if diff := cmp.Diff(want, current.nextRow()); diff != "" {
			t.Error(diff)
		}
	}
	for _, c := range []*client{old, current} {
		if r := c.nextRow(); r.Event != "text" {
			t.Errorf("version %d got %+v", c.vsn, r)
		}
	}
}

// spec: pgchanges:111 pgchanges:112
func TestRowsThatAreNotDelivered(t *testing.T) {
	t.Parallel()
	p := newPipe(t, pgtest.New(t), func(cfg *realtime.Config) { cfg.MaxPayloadKB = 1 })
	c := p.on(phoenix.V2, "room", publicJoin)
	p.db.ExecAs("postgres", `
select realtime.send('{}', null, 'room', false);
select realtime.send('{}', null, 'room', false);
select realtime.send('{}', 'no visibility', 'room', null);
select realtime.send(null, 'no body', 'room', false);
insert into realtime.messages (topic, extension, event, private, payload) values ('room', 'broadcast', 'long', false, to_jsonb(repeat('x', 1499)));
select realtime.send_binary(convert_to(repeat('x', 1501), 'utf8'), 'long binary', 'room', false);
insert into realtime.messages (topic, extension, event, private, payload) values ('room', 'broadcast', 'fits', false, to_jsonb(repeat('x', 1498)));
select realtime.send_binary(convert_to(repeat('x', 1500), 'utf8'), 'fits too', 'room', false)`)
	for _, want := range []string{"fits", "fits too"} {
		if r := c.nextRow(); r.Event != want {
			t.Errorf("got %s, want %s", r.Event, want)
		}
	}
	for _, text := range []string{"event is null", "private is null", "payload and binary_payload are null", "payload is over the size limit"} {
		if p.logs.count(text) != 1 {
			t.Errorf("%d lines say %q", p.logs.count(text), text)
		}
	}
	if n := p.srv.Metrics().DroppedRows.Load(); n != 6 {
		t.Errorf("%d rows dropped", n)
	}
}

// While the policies of a table hang, and far more changes wait than its worker
// takes, rows of realtime.messages are delivered.
func TestRowsDoNotWaitForPolicies(t *testing.T) {
	t.Parallel()
	p := newPipe(t, pgtest.New(t))
	p.db.ExecAs("postgres", `
create table slow (id int primary key);
alter table slow enable row level security;
create function hang() returns boolean language plpgsql volatile as $$ begin perform pg_advisory_xact_lock_shared(7); return true; end $$;
create policy hangs on slow for select to anon using (public.hang());
grant select on slow to anon;
alter publication supabase_realtime add table slow`)
	changes := p.on(phoenix.V2, "changes", `{"config":{"postgres_changes":[{"event":"*","schema":"public","table":"slow"}]}}`)
	if m := changes.next(); m.Event != "system" {
		t.Fatal(m)
	}
	messages := p.on(phoenix.V2, "room", publicJoin)
	lock, err := p.db.Admin().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback(context.Background()) //nolint:errcheck // the end of a test that failed
	if _, err := lock.Exec(t.Context(), "select pg_advisory_xact_lock(7)"); err != nil {
		t.Fatal(err)
	}
	const n = 500 // transactions; a worker's queue takes 64
	p.db.ExecAs("postgres", fmt.Sprintf("do $$ begin for i in 1..%d loop insert into public.slow values (i); commit; end loop; end $$", n))
	p.db.ExecAs("postgres", "select realtime.send('{}', 'meanwhile', 'room', false)")
	if r := messages.nextRow(); r.Event != "meanwhile" {
		t.Error(r)
	}
	changes.mu.Lock()
	if len(changes.inbox) > 0 {
		t.Errorf("the policy does not hang: %v", changes.inbox[0])
	}
	changes.mu.Unlock()
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range n {
		if m := changes.next(); m.Event != "postgres_changes" {
			t.Fatal(m)
		}
	}
}

// A row of realtime.messages is a Postgres Change only when the user has
// published the table.
func TestRowsAsChanges(t *testing.T) {
	t.Parallel()
	p := newPipe(t, pgtest.New(t))
	const everything = `{"config":{"postgres_changes":[{"event":"*","schema":"realtime"}]}}`
	c := p.on(phoenix.V2, "room", everything)
	if m := c.next(); m.Event != "system" || !strings.Contains(string(m.Payload), "Unable to subscribe to changes") {
		t.Errorf("not published: %v", m)
	}
	p.db.ExecAs("postgres", "select realtime.send('{}', 'first', 'room', false)")
	if r := c.nextRow(); r.Event != "first" {
		t.Error(r)
	}
	p.db.ExecAs("postgres", "alter publication supabase_realtime set (publish_via_partition_root = true); alter publication supabase_realtime add table realtime.messages")
	published := p.on(phoenix.V2, "elsewhere", everything)
	if m := published.next(); m.Event != "system" || !strings.Contains(string(m.Payload), `"ok"`) {
		t.Errorf("published: %v", m)
	}
	p.db.ExecAs("postgres", "select realtime.send('{}', 'second', 'room', false)")
	if r := c.nextRow(); r.Event != "second" {
		t.Error(r)
	}
	if m := published.next(); m.Event != "postgres_changes" || !strings.Contains(string(m.Payload), `"second"`) {
		t.Error(m)
	}
}

// spec: realtime:93
func TestSlotIsLost(t *testing.T) {
	t.Parallel()
	p := newPipe(t, pgtest.New(t))
	sender, c := p.on(phoenix.V2, "room", publicJoin), p.on(phoenix.V2, "room", publicJoin)
	p.db.ExecAs("postgres", "select realtime.send('{}', 'first', 'room', false)")
	for _, c := range []*client{sender, c} {
		if r := c.nextRow(); r.Event != "first" {
			t.Fatal(r)
		}
	}
	slot := "sluice_" + p.db.Name
	dropped := false
	for !dropped { // the reader comes back as soon as it is cut off
		p.db.Exec("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1", slot)
		_, err := p.db.Admin().Exec(t.Context(), "select pg_drop_replication_slot($1)", slot)
		dropped = err == nil
	}
	sender.push("1", "realtime:room", "broadcast", `{"type":"broadcast","event":"socket","payload":{}}`)
	if m := c.next(); !strings.Contains(string(m.Payload), "socket") {
		t.Error(m)
	}
	p.until(func() bool { // the reader makes it again
		return p.query("select count(*)::text from pg_replication_slots where slot_name = $1 and active", slot) == "1"
	})
	p.live()
	p.db.ExecAs("postgres", "select realtime.send('{}', 'after', 'room', false)")
	if r := c.nextRow(); r.Event != "after" {
		t.Error(r)
	}
}

// The stream behind a flood of WAL, and behind a restart of the server.
func TestFloodAndRestart(t *testing.T) {
	t.Parallel()
	p := newPipe(t, pgtest.Private(t))
	p.db.ExecAs("postgres", "create table flood (id int, body text)")
	c := p.on(phoenix.V2, "room", publicJoin)
	p.db.ExecAs("postgres", "insert into flood select g, repeat('x', 500) from generate_series(1, 50000) g; select realtime.send('{}', 'behind the flood', 'room', false)")
	if r := c.nextRow(); r.Event != "behind the flood" {
		t.Error(r)
	}
	p.db.Restart()
	p.db.ExecAs("postgres", "select realtime.send('{}', 'behind the restart', 'room', false)")
	if r := c.nextRow(); r.Event != "behind the restart" {
		t.Error(r)
	}
}

// messages is the description of realtime.messages in the stream.
var messages = &sluice.Relation{Schema: "realtime", Name: "messages", Columns: []sluice.Column{
	{Name: "topic"},
	{Name: "extension"},
	{Name: "payload"},
	{Name: "event"},
	{Name: "private"},
	{Name: "updated_at"},
	{Name: "inserted_at", Key: true},
	{Name: "id", Key: true},
	{Name: "binary_payload"},
}}

// messageRow is a row of it; empty texts are null.
func messageRow(values ...string) []sluice.Value {
	out := make([]sluice.Value, len(values))
	for i, v := range values {
		out[i].Kind = sluice.ValueNull
		if v != "" {
			out[i] = sluice.Value{Kind: sluice.ValueText, Text: []byte(v)}
		}
	}
	return out
}

const rowTime = "2026-01-02 03:04:05.6"

func eventRow(event string) sluice.Change {
	return sluice.Change{Kind: sluice.ChangeInsert, Relation: messages, New: messageRow(
		"room", "broadcast", `{"a": 1}`, event, "f", rowTime, rowTime, "00000000-0000-4000-8000-000000000001", "")}
}

// rowsNow is a batch that was committed and sent just now.
func rowsNow(rows ...sluice.Change) sluice.ChangeBatch {
	now := time.Now()
	return sluice.ChangeBatch{CommitTime: now, Sent: now, Changes: rows}
}

// What was committed more than a minute before the stream brought it is left to
// replay; how slow the clock of this machine is does not matter.
func TestOldRowsAreLeftToReplay(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		c.joined("realtime:room", publicJoin)
		commit := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
		for event, age := range map[string]time.Duration{"old": time.Minute + time.Millisecond, "older": time.Hour} {
			w.srv.DeliverRows(sluice.ChangeBatch{CommitTime: commit, Sent: commit.Add(age), Changes: []sluice.Change{eventRow(event), eventRow(event)}})
		}
		w.srv.DeliverRows(sluice.ChangeBatch{CommitTime: commit, Sent: commit.Add(time.Minute), Changes: []sluice.Change{eventRow("young")}})
		got := c.got()
		if len(got) != 1 || got[0].broadcast(t).Event != "young" {
			t.Errorf("got %v", got)
		}
		if n := w.srv.Metrics().DroppedStale.Load(); n != 4 {
			t.Errorf("%d rows are left to replay", n)
		}
		const line = "left to replay"
		if n := w.logs.count(line); n != 1 {
			t.Errorf("%d lines", n)
		}
		time.Sleep(time.Minute) // of the bubble
		w.srv.DeliverRows(sluice.ChangeBatch{CommitTime: commit, Sent: commit.Add(time.Hour), Changes: []sluice.Change{eventRow("old")}})
		if w.logs.count(line) != 2 || w.logs.count("left_out=1") != 1 {
			t.Error("a minute later the log does not say it again")
		}
	})
}

// spec: pgchanges:113
func TestRowsOverTheRate(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		c.joined("realtime:room", publicJoin)
		for range 10 { // 10 rows + 10 delivered: 20 over two ticks are 2 a second
			w.srv.DeliverRows(rowsNow(eventRow("within")))
		}
		if got := c.got(); len(got) != 10 {
			t.Errorf("got %v", got)
		}
		pass(5 * time.Second)
		w.srv.DeliverRows(rowsNow(eventRow("over"), eventRow("over")))
		if got := c.got(); len(got) != 0 {
			t.Errorf("over the rate: %v", got)
		}
		if n := w.srv.Metrics().DroppedRows.Load(); n != 2 {
			t.Errorf("%d rows dropped", n)
		}
		beat(70*time.Second, c)
		c.got()
		w.srv.DeliverRows(rowsNow(eventRow("again")))
		if got := c.got(); len(got) != 1 || got[0].broadcast(t).Event != "again" {
			t.Errorf("after a minute: %v", got)
		}
	}, func(cfg *realtime.Config) { cfg.MaxEventsPerSecond = 2 })
}

func TestRowBroadcast(t *testing.T) {
	t.Parallel()
	const id = "00000000-0000-4000-8000-000000000001"
	for name, c := range map[string]struct {
		row     []sluice.Value
		want    sluice.Broadcast
		problem string
	}{
		"JSON": {messageRow("room", "x", "[1]", "ev", "t", rowTime, rowTime, id, ""), sluice.Broadcast{
			Topic: sluice.Topic{Name: "room", Private: true}, Form: sluice.BroadcastJSON, Event: "ev", Payload: []byte("[1]"), Meta: []byte(meta(id)), ID: id,
		}, ""},
		"binary": {messageRow("room", "x", "", "ev", "f", rowTime, rowTime, id, `\x00ff`), sluice.Broadcast{
			Topic: sluice.Topic{Name: "room"}, Form: sluice.BroadcastBinary, Event: "ev", Payload: []byte{0, 255}, Meta: []byte(meta(id)), ID: id,
		}, ""},
		"no topic":       {row: messageRow("", "x", "1", "ev", "t", rowTime, rowTime, id, ""), problem: "topic is null"},
		"no id":          {row: messageRow("room", "x", "1", "ev", "t", rowTime, rowTime, "", ""), problem: "id is null"},
		"no time":        {row: messageRow("room", "x", "1", "ev", "t", rowTime, "", id, ""), problem: "inserted_at is null"},
		"escape form":    {row: messageRow("room", "x", "", "ev", "t", rowTime, rowTime, id, `abc`), problem: "binary_payload is not in hexadecimal form"},
		"half a byte":    {row: messageRow("room", "x", "", "ev", "t", rowTime, rowTime, id, `\x0`), problem: "binary_payload is not in hexadecimal form"},
		"no JSON":        {row: messageRow("room", "x", "{", "ev", "t", rowTime, rowTime, id, ""), problem: "payload is not JSON"},
		"too few values": {row: messageRow("room"), problem: "event is null"},
	} {
		b, problem := realtime.RowBroadcast(messages, c.row, 100)
		if problem != c.problem {
			t.Errorf("%s: %q, want %q", name, problem, c.problem)
		}
		if diff := cmp.Diff(c.want, b); c.problem == "" && diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Whatever stands in a row, what is made of it can be sent.
func FuzzRowBroadcast(f *testing.F) {
	f.Add("room", "ev", "t", rowTime, "id", `{"a": 1}`, "", true)
	f.Add("room", "", "f", "", "", "", `\x00ff`, false)
	f.Fuzz(func(t *testing.T, topic, event, private, at, id, payload, binary string, wide bool) {
		rel := messages
		if !wide { // a table that lacks columns
			rel = &sluice.Relation{Columns: messages.Columns[:7]}
		}
		const limit = 64
		b, problem := realtime.RowBroadcast(rel, messageRow(topic, "x", payload, event, private, at, at, id, binary), limit)
		if problem != "" {
			return
		}
		if topic == "" || event == "" || id == "" || len(b.Payload) > limit || !json.Valid(b.Meta) {
			t.Fatalf("made %+v", b)
		}
		for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
			for _, encode := range []func() ([]byte, bool, error){
				func() ([]byte, bool, error) { return phoenix.AppendBroadcast(nil, v, topic, &b) },
				func() ([]byte, bool, error) { return phoenix.AppendReplayed(nil, v, `"1"`, topic, &b) },
			} {
				if out, isBinary, err := encode(); err == nil && !isBinary && !json.Valid(out) {
					t.Fatalf("version %d would get %q", v, out)
				}
			}
		}
	})
}

// Rows of realtime.messages from INSERT to the socket: one subscriber, rows of
// 100 bytes, one transaction each or 100. The writer is PostgreSQL alone.
func BenchmarkRows(b *testing.B) {
	for _, each := range []int{1, 100} {
		b.Run(fmt.Sprintf("rows/transaction=%d", each), func(b *testing.B) {
			p := newPipe(b, pgtest.New(b))
			c := p.on(phoenix.V2, "room", publicJoin)
			b.ResetTimer()
			written := make(chan error, 1)
			go func() { // ends with its statement; waited for below
				_, err := p.db.Admin().Exec(context.Background(), fmt.Sprintf(`do $$ begin for i in 1..%d loop
  insert into realtime.messages (topic, extension, event, private, payload) values ('room', 'broadcast', 'ev', false, jsonb_build_object('n', i, 'body', repeat('x', 80)));
  if i %% %d = 0 then commit; end if; end loop; end $$`, b.N, each))
				written <- err
			}()
			for range b.N {
				c.next()
			}
			if err := <-written; err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
