package realtime_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// since is the payload of a join that replays from a time on.
func since(t time.Time, rest string) string {
	return fmt.Sprintf(`{"config":{"private":true,"broadcast":{"replay":{"since":%d%s}}}}`, t.UnixMilli(), rest)
}

// replayed joins topic and returns what follows the reply, up to and without the
// answer to a heartbeat that was sent behind the join.
func (c *client) replayed(topic, payload string) []msg {
	c.t.Helper()
	c.joinNow(topic, payload)
	c.push(nil, "phoenix", "heartbeat", "{}")
	var out []msg
	for {
		m := c.next()
		if m.Topic == "phoenix" {
			return out
		}
		out = append(out, m)
	}
}

// spec: realtime:95 realtime:96 pgchanges:131
func TestReplayIsRefused(t *testing.T) {
	t.Parallel()
	const invalid = "UnableToReplayMessages: Replay params are not valid"
	versions(t, func(t *testing.T, v phoenix.Version) {
		w, _ := newReplayWorld(t, pgtest.New(t))
		c := w.connect(v)
		refused := func(config, reason string) {
			t.Helper()
			c.join("realtime:room", `{"config":`+config+`}`)
			want(t, []msg{c.next()}, refusedReply(reason))
		}
		for _, params := range []string{
			`{}`, `{"limit":10}`, `{"since":null}`, `{"since":"1723100000000"}`, `{"since":1723100000000.5}`, `{"since":1723100000000.0}`, `{"since":1e12}`,
			`{"since":true}`, `{"since":[1]}`, `{"since":253402300800000}`, `{"since":-377705116800001}`, `{"since":99999999999999999999}`,
			`{"since":1723100000000,"limit":"1"}`, `{"since":1723100000000,"limit":1.5}`, `{"since":1723100000000,"limit":false}`, `{"since":1723100000000,"limit":{}}`,
		} {
			refused(`{"private":true,"broadcast":{"replay":`+params+`}}`, invalid)
		}
		const public = "UnableToReplayMessages: Replay is not allowed for public channels"
		for _, replay := range []string{`{"since":1723100000000}`, `{}`, `null`, `7`} {
			refused(`{"broadcast":{"replay":`+replay+`}}`, public)
			refused(`{"private":false,"broadcast":{"replay":`+replay+`}}`, public)
		}
		// Neither object nor missing: ignored on a private channel.
		for i, replay := range []string{`null`, `7`, `[]`, `"x"`} {
			got := c.replayed(fmt.Sprint("room", i), `{"config":{"private":true,"broadcast":{"replay":`+replay+`}}}`)
			want(t, got)
		}
	})
}

// spec: realtime:97
func TestReplayWithoutDatabase(t *testing.T) {
	t.Parallel()
	refused := func(t *testing.T, w *world) {
		t.Helper()
		c := w.connect(phoenix.V2)
		c.join("realtime:room", since(time.Now(), ""))
		want(t, []msg{c.next()}, refusedReply("UnableToReplayMessages: Realtime was unable to replay messages"))
		if n := w.srv.Topics(); n != 0 {
			t.Errorf("%d topics have subscribers", n)
		}
		c.joinNow("room", privateJoin) // without replay it is a channel like any other
	}
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		w, admin := newReplayWorld(t, pgtest.New(t), func(cfg *realtime.Config) { cfg.ReplayTimeout = 50 * time.Millisecond })
		defer occupy(t, admin)()
		refused(t, w)
	})
	t.Run("no server", func(t *testing.T) {
		t.Parallel()
		w, _ := newReplayWorld(t, pgtest.New(t), func(cfg *realtime.Config) {
			var err error
			if cfg.Admin, err = pg.Open(t.Context(), pg.Config{URL: "postgres://127.0.0.1:1/x", Logger: cfg.Logger}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cfg.Admin.Close)
		})
		refused(t, w)
	})
	t.Run("error", func(t *testing.T) {
		t.Parallel()
		db := pgtest.New(t)
		w, _ := newReplayWorld(t, db)
		db.Exec("alter table realtime.messages rename column binary_payload to other")
		refused(t, w)
	})
	t.Run("not configured", func(t *testing.T) {
		t.Parallel()
		w, _ := newReplayWorld(t, pgtest.New(t), func(cfg *realtime.Config) { cfg.Admin = nil })
		refused(t, w)
	})
}

// newReplayWorld is a server that replays from db over the one connection of a
// pool, without the log behind it.
func newReplayWorld(t testing.TB, db *pgtest.DB, change ...func(*realtime.Config)) (*world, *pg.Pool) {
	t.Helper()
	admin, err := pg.Open(context.Background(), pg.Config{URL: db.URL("supabase_admin"), MaxConns: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	w := newPrivateWorld(t, db, append([]func(*realtime.Config){func(cfg *realtime.Config) { cfg.Admin = admin }}, change...)...)
	t.Cleanup(w.stop)
	return w, admin
}

// occupy takes the pool's connection, so that replays wait until free is called.
func occupy(t *testing.T, p *pg.Pool) (free func()) {
	t.Helper()
	conn, err := p.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	free = sync.OnceFunc(conn.Release)
	t.Cleanup(free) // before the pool is closed
	return free
}

func events(t testing.TB, got []msg) []string {
	out := []string{}
	for _, m := range got {
		out = append(out, m.broadcast(t).Event)
	}
	return out
}

// spec: realtime:98 pgchanges:129 pgchanges:130
func TestReplayChooses(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w, _ := newReplayWorld(t, db, func(cfg *realtime.Config) { cfg.MaxPayloadKB = 1 })
	db.Exec(`
insert into realtime.messages (topic, extension, event, payload, private, inserted_at)
select 'room', 'broadcast', 'ev' || g, '{}', true, now() at time zone 'utc' - g * interval '1 minute' from generate_series(1, 40) g;
insert into realtime.messages (topic, extension, event, payload, private, inserted_at) values
  ('other', 'broadcast', 'of another topic', '{}', true, now() at time zone 'utc'),
  ('room', 'broadcast', 'public', '{}', false, now() at time zone 'utc'),
  ('room', 'broadcast', 'neither', '{}', null, now() at time zone 'utc'),
  ('room', 'presence', 'presence', '{}', true, now() at time zone 'utc'),
  ('room', 'broadcast', 'of the future', '{}', true, now() at time zone 'utc' + interval '2 minutes'),
  ('room', 'broadcast', null, '{}', true, now() at time zone 'utc'),
  ('room', 'broadcast', 'without a body', null, true, now() at time zone 'utc'),
  ('room', 'broadcast', 'too large', to_jsonb(repeat('x', 1499)), true, now() at time zone 'utc')`)
	newest := func(n int) []string {
		out := []string{}
		for i := n; i > 0; i-- {
			out = append(out, fmt.Sprint("ev", i))
		}
		return out
	}
	hour := time.Now().Add(-time.Hour)
	for payload, want := range map[string][]string{
		since(hour, ""):                                          newest(25),
		since(hour, `,"limit":null`):                             newest(25),
		since(hour, `,"limit":3`):                                newest(3),
		since(hour, `,"limit":1`):                                newest(1),
		since(hour, `,"limit":0`):                                newest(1),
		since(hour, `,"limit":-9`):                               newest(1),
		since(hour, `,"limit":26`):                               newest(25),
		since(hour, `,"limit":99999999999999999999`):             newest(25),
		since(time.Now().Add(-5*time.Minute-30*time.Second), ""): newest(5),
		since(time.Now(), ""):                                    {},
		since(time.Now().Add(time.Hour), ""):                     {},
		`{"config":{"private":true,"broadcast":{"replay":{"since":-1,"limit":2}}}}`:               newest(2),
		`{"config":{"private":true,"broadcast":{"replay":{"since":-377705116800000,"limit":2}}}}`: newest(2),
		`{"config":{"private":true,"broadcast":{"replay":{"since":253402300799999}}}}`:            {},
	} {
		got := w.connect(phoenix.V2).replayed("room", payload)
		if diff := cmp.Diff(want, events(t, got)); diff != "" {
			t.Errorf("%s: %s", payload, diff)
		}
	}
}

// A session in another time zone, or a server in one, moves nothing.
func TestReplayInAnotherTimeZone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("do $$ begin execute format('alter database %I set timezone = ''Pacific/Kiritimati''', current_database()); end $$")
	w, _ := newReplayWorld(t, db)
	db.Exec(`insert into realtime.messages (topic, extension, event, payload, private, inserted_at) values
  ('room', 'broadcast', 'early', '{}', true, now() at time zone 'utc' - interval '2 minutes'), ('room', 'broadcast', 'late', '{}', true, now() at time zone 'utc')`)
	got := w.connect(phoenix.V2).replayed("room", since(time.Now().Add(-time.Minute), ""))
	if diff := cmp.Diff([]string{"late"}, events(t, got)); diff != "" {
		t.Error(diff)
	}
}

// spec: realtime:99 pgchanges:132
func TestReplayedForms(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w, _ := newReplayWorld(t, db)
	// One transaction: all rows have the same time.
	db.ExecAs("postgres", `select realtime.send('{"n":1}', 'one', 'room'); select realtime.send_binary('\x02', 'two', 'room');
		select realtime.send('{"n":3}', 'three', 'room'); select realtime.send_binary('', 'four', 'room'); select realtime.send('[5]'::jsonb || '"id"', 'five', 'room')`)
	id := func(event string) (id string) {
		if err := db.Admin().QueryRow(t.Context(), "select id::text from realtime.messages where event = $1", event).Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	made := func(event, payload string, binary bool) row {
		r := row{Topic: "realtime:room", Event: event, Payload: payload, Binary: binary, Text: !binary}
		r.Meta = `{"id":"` + id(event) + `","replayed":true}`
		return r
	}
	one, two, three := made("one", `{"n": 1, "id": "`+id("one")+`"}`, false), made("two", "\x02", true), made("three", `{"n": 3, "id": "`+id("three")+`"}`, false)
	four, five := made("four", "", true), made("five", `[5, "id"]`, false)
	for v, want := range map[phoenix.Version][]row{phoenix.V1: {one, three, five}, phoenix.V2: {one, two, three, four, five}} {
		got := w.connect(v).replayed("room", since(time.Now().Add(-time.Minute), ""))
		var rows []row
		for _, m := range got {
			rows = append(rows, m.broadcast(t))
			// A text frame of version 2 names the join that it belongs to.
			if joinRef := m.JoinRef; m.Binary == nil && v == phoenix.V2 && joinRef != "1" || joinRef != nil && v == phoenix.V1 {
				t.Errorf("version %d: join_ref %v", v, joinRef)
			}
		}
		if diff := cmp.Diff(want, rows); diff != "" {
			t.Errorf("version %d: %s", v, diff)
		}
	}
}

// Rows that a client could never take at once are cut off at the old end.
func TestReplayFitsTheQueue(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w, _ := newReplayWorld(t, db, func(cfg *realtime.Config) { cfg.QueueBytes = 10_000 })
	db.Exec(`insert into realtime.messages (topic, extension, event, private, payload)
		select t, 'broadcast', 'ev' || g, true, to_jsonb(repeat('x', case t when 'room' then 2000 else 9000 end)) from generate_series(1, 5) g, unnest(array['room', 'large']) t order by g`)
	for topic, want := range map[string][]string{"room": {"ev4", "ev5"}, "large": {"ev5"}} {
		got := w.connect(phoenix.V2).replayed(topic, since(time.Now().Add(-time.Minute), ""))
		if diff := cmp.Diff(want, events(t, got)); diff != "" {
			t.Errorf("%s: %s", topic, diff)
		}
	}
}

// spec: realtime:90
func TestReplayedRowsComeOnce(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v phoenix.Version) {
		db := pgtest.New(t)
		w, _ := newReplayWorld(t, db)
		db.ExecAs("postgres", `select realtime.send('{}', 'one', 'room'); select realtime.send_binary('\x02', 'two', 'room')`)
		c := w.connect(v)
		n := 2 // of binary rows a 1.0.0 socket gets none
		if v == phoenix.V1 {
			n = 1
		}
		if got := c.replayed("room", since(time.Now().Add(-time.Minute), "")); len(got) != n {
			t.Fatalf("replayed %v", got)
		}
		other := w.connect(v)
		other.joinNow("room", privateJoin)
		for _, event := range []string{"one", "two", "new"} {
			b := sluice.Broadcast{Topic: sluice.Topic{Name: "room", Private: true}, Form: sluice.BroadcastJSON, Event: event, Payload: []byte("{}"), ID: event}
			if event == "two" {
				b.Form = sluice.BroadcastBinary
			}
			if event != "new" {
				if err := db.Admin().QueryRow(t.Context(), "select id::text from realtime.messages where event = $1", event).Scan(&b.ID); err != nil {
					t.Fatal(err)
				}
			}
			w.srv.Deliver(&b)
		}
		if r := c.nextRow(); r.Event != "new" {
			t.Errorf("%s came again", r.Event)
		}
		if r := other.nextRow(); r.Event != "one" {
			t.Errorf("a channel without replay got %s first", r.Event)
		}
		if got := w.srv.Metrics().DroppedReplayed.Load(); got != int64(n) {
			t.Errorf("%d deliveries left out", got)
		}
	})
}

// What is sent while the rows are being read waits for the join reply and the
// replayed rows; what is both comes once.
func TestLiveWaitsForReplay(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w, admin := newReplayWorld(t, db)
	free := occupy(t, admin)
	db.ExecAs("postgres", "select realtime.send('{}', 'stored', 'room')")
	var id string
	if err := db.Admin().QueryRow(t.Context(), "select id::text from realtime.messages").Scan(&id); err != nil {
		t.Fatal(err)
	}
	c := w.connect(phoenix.V2)
	c.join("realtime:room", since(time.Now().Add(-time.Minute), ""))
	// The channel is on its topic before the rows are read.
	w.until(func() bool { return w.srv.Topics() == 1 })
	tracker := w.connect(phoenix.V2)
	ref := tracker.joinNow("room", `{"config":{"private":true,"presence":{"key":"k","enabled":true}}}`)
	tracker.push(ref, "realtime:room", "presence", `{"type":"presence","event":"track","payload":{}}`)
	for tracker.next().Event != "presence_diff" {
		// It has gone to everybody else on the topic.
	}
	w.srv.Deliver(&sluice.Broadcast{Topic: sluice.Topic{Name: "room", Private: true}, Form: sluice.BroadcastJSON, Event: "live", Payload: []byte("{}")})
	w.srv.Deliver(&sluice.Broadcast{Topic: sluice.Topic{Name: "room", Private: true}, Form: sluice.BroadcastJSON, Event: "stored", Payload: []byte("{}"), ID: id})
	free()
	if m := c.next(); m.Event != "phx_reply" {
		t.Errorf("ahead of the reply: %v", m)
	}
	c.push(nil, "phoenix", "heartbeat", "{}")
	var got []string
	for m := c.next(); m.Topic != "phoenix"; m = c.next() {
		got = append(got, m.broadcast(t).Event) // nothing else may come
	}
	if diff := cmp.Diff([]string{"stored", "live"}, got); diff != "" {
		t.Error(diff)
	}
}

// A client that goes away while its rows are being read leaves nothing behind.
func TestReplayIsGivenUp(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w, admin := newReplayWorld(t, db)
	occupy(t, admin)
	c := w.connect(phoenix.V2)
	ref := c.join("realtime:room", since(time.Now(), ""))
	w.until(func() bool { return w.srv.Topics() == 1 })
	c.push(ref, "realtime:room", "phx_leave", "{}")
	if m := c.next(); m.Event != "phx_reply" && m.Event != "phx_close" {
		t.Error(m)
	}
	w.until(func() bool { return w.srv.Topics() == 0 })
	gone := w.connect(phoenix.V2)
	gone.join("realtime:room", since(time.Now(), ""))
	w.until(func() bool { return w.srv.Topics() == 1 })
	gone.nc.Close()
	w.until(func() bool { return w.srv.Topics() == 0 })
	if n := w.srv.Metrics().Channels.Load(); n != 0 {
		t.Errorf("%d channels", n)
	}
}

// More than can wait while a replay is read closes the socket: the client must
// not believe that it has had everything.
func TestTooMuchBeforeReplay(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w, admin := newReplayWorld(t, db, func(cfg *realtime.Config) { cfg.QueueFrames = 8 })
	occupy(t, admin)
	c := w.connect(phoenix.V2)
	c.join("realtime:room", since(time.Now(), ""))
	w.until(func() bool { return w.srv.Topics() == 1 })
	for range 5 {
		w.srv.Deliver(&sluice.Broadcast{Topic: sluice.Topic{Name: "room", Private: true}, Form: sluice.BroadcastJSON, Event: "ev", Payload: []byte("{}")})
	}
	c.mu.Lock()
	for c.err == nil {
		c.cond.Wait()
	}
	if c.code != 1013 || !strings.Contains(c.reason, "SlowReader") {
		t.Errorf("closed with %d %q", c.code, c.reason)
	}
	c.mu.Unlock()
}

// Who may read presence alone gets no replay, and no channel.
func TestReplayNeedsTheRightToReadBroadcasts(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w, _ := newReplayWorld(t, db)
	db.ExecAs("postgres", "drop policy everybody_reads on realtime.messages; create policy presence on realtime.messages for select to anon using (extension = 'presence')")
	c := w.connect(phoenix.V2)
	c.join("realtime:room", strings.Replace(since(time.Now(), ""), `"private":true`, `"private":true,"presence":{"enabled":true}`, 1))
	want(t, []msg{c.next()}, refusedReply("Unauthorized: You do not have permissions to read from this Channel topic: room"))
	c.joinNow("room", `{"config":{"private":true,"presence":{"enabled":true}}}`)
}
