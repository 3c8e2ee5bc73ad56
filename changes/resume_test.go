package changes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/wal"
)

// session is a user's claims with an Auth session.
func session(n int, id string) sluice.Claims {
	c := claimsOf("authenticated", user(n))
	c.SessionID = id
	return c
}

// client is one client over its sockets.
type client struct {
	*listener
	notes chan *sluice.Refusal
}

// join subscribes a client whose socket has number conn and whose first message has
// number first.
func (f *feed) join(t testing.TB, c sluice.Claims, conn int64, first uint64, change func(*sluice.ChangeSubscription), params ...string) *client {
	t.Helper()
	x := &client{listener: &listener{t: t, more: make(chan struct{}, 1)}, notes: make(chan *sluice.Refusal, 16)}
	req := sluice.ChangeSubscription{
		Claims: c, Topic: "topic", Deliver: x.deliver, Notify: func(r *sluice.Refusal) { x.notes <- r },
		Resume: &sluice.Resume{Conn: conn, First: first},
	}
	for i, p := range params {
		req.Bindings = append(req.Bindings, sluice.ChangeBinding{ID: int64(i + 1), Params: json.RawMessage(p)})
	}
	if change != nil {
		change(&req)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	sub, _, err := f.Subscribe(ctx, req)
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	x.sub = sub
	t.Cleanup(sub.Close)
	return x
}

// note returns what the feed says next.
func (x *client) note() *sluice.Refusal {
	x.t.Helper()
	select {
	case r := <-x.notes:
		return r
	case <-time.After(20 * time.Second):
		x.t.Fatal("the feed says nothing")
		return nil
	}
}

// cut ends the socket after the client has had everything so far.
func (x *client) cut(ref uint64) {
	x.sub.Confirm(x.sub.Position(), ref)
	x.sub.Hold()
}

const anyA = `{"event":"*","schema":"public","table":"a"}`

// settled waits until the feed has delivered what is committed.
func (x *client) settled(db *pgtest.DB) {
	x.t.Helper()
	var now string
	if err := db.Admin().QueryRow(x.t.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&now); err != nil {
		x.t.Fatal(err)
	}
	at, err := sluice.ParseLSN(now)
	if err != nil {
		x.t.Fatal(err)
	}
	db.Exec("select pg_logical_emit_message(true, 'test', '')")
	eventually(x.t, "everything is delivered", func() bool { return x.sub.Position() >= at })
}

// Who goes on has what it missed, in order and once, and then what is live.
func TestResume(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a", "b")
	f := newFeed(t, db)
	who := session(1, "s1")
	row := func(table string, id int) {
		db.Exec(fmt.Sprintf("insert into public.%s values ($1, 1, $2)", table), id, user(1))
	}
	first := f.join(t, who, 1, 1, nil, anyA)
	row("a", 1)
	first.wait(1)
	first.settled(db)
	first.cut(7)
	for id := 2; id <= 50; id++ {
		row("a", id)
		row("b", id)
	}
	done := make(chan struct{})
	go func() { // ends with its inserts; waited for below
		defer close(done)
		for id := 51; id <= 100; id++ {
			row("a", id)
		}
	}()
	second := f.join(t, who, 2, 8, nil, anyA)
	if r := second.note(); r.Code != sluice.CodeChangesResumed {
		t.Errorf("the feed says %v", r)
	}
	<-done
	var want []int
	for id := 2; id <= 100; id++ {
		want = append(want, id)
	}
	if d := cmp.Diff(want, ids(second.wait(99))); d != "" {
		t.Error(d)
	}
	second.settled(db)
	if got := len(second.got()); got != 99 {
		t.Errorf("%d events", got)
	}
	if got := len(first.got()); got != 1 {
		t.Errorf("the socket that was cut has %d events", got)
	}
	if m := f.Metrics(); m.Resumes.Load() != 1 || m.Gaps.Load() != 0 {
		t.Errorf("%d resumes, %d gaps", m.Resumes.Load(), m.Gaps.Load())
	}
}

// Who begins anew, and whoever is somebody else, hears nothing of what was missed.
func TestFreshJoins(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	f := newFeed(t, db)
	db.Exec("grant select on public.a to service_role")
	cutOff := f.join(t, session(1, "s1"), 1, 1, nil, anyA)
	cutOff.cut(20)
	anonymous := f.join(t, claimsOf("authenticated", ""), 1, 1, nil, anyA)
	anonymous.cut(20)
	nameless := f.join(t, claimsOf("authenticated", user(2)), 1, 1, nil, anyA) // without a session
	nameless.cut(20)
	db.Exec("insert into public.a values (1, 1, $1)", user(1))
	other := session(1, "s1")
	other.Role = "service_role"
	topic := func(s *sluice.ChangeSubscription) { s.Topic = "another" }
	for _, tt := range []struct {
		name   string
		claims sluice.Claims
		conn   int64
		first  uint64
		change func(*sluice.ChangeSubscription)
		params string
	}{
		{"a reload", session(1, "s1"), 2, 1, nil, anyA},
		{"as many messages", session(1, "s1"), 2, 20, nil, anyA},
		{"no number", session(1, "s1"), 2, 0, nil, anyA},
		{"another session", session(1, "s2"), 2, 21, nil, anyA},
		{"another user", session(2, "s1"), 2, 21, nil, anyA},
		{"another role", other, 2, 21, nil, anyA},
		{"another topic", session(1, "s1"), 2, 21, topic, anyA},
		{"other bindings", session(1, "s1"), 2, 21, nil, `{"event":"INSERT","schema":"public","table":"a"}`},
		{"nobody's token", claimsOf("authenticated", ""), 2, 21, nil, anyA},
		{"a token without session", claimsOf("authenticated", user(2)), 2, 21, nil, anyA},
	} {
		x := f.join(t, tt.claims, tt.conn, tt.first, tt.change, tt.params)
		x.settled(db)
		if n := len(x.got()); n != 0 || len(x.notes) != 0 {
			t.Errorf("%s: %d events, %d notes", tt.name, n, len(x.notes))
		}
		x.sub.Close()
	}
	// The same socket needs no session, and the place is still there.
	x := f.join(t, claimsOf("authenticated", user(2)), 1, 1, nil, anyA)
	x.wait(1)
	x = f.join(t, session(1, "s1"), 2, 21, nil, anyA)
	x.wait(1)
	// It is given out once.
	x = f.join(t, session(1, "s1"), 3, 21, nil, anyA)
	x.settled(db)
	if n := len(x.got()); n != 0 {
		t.Errorf("%d events at the second taking", n)
	}
}

// The old socket is dead and nobody has noticed: its client goes on all the same.
func TestResumeBesideADeadSocket(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	f := newFeed(t, db)
	first := f.join(t, session(1, "s1"), 1, 1, nil, anyA)
	first.sub.Confirm(first.sub.Position(), 5)
	db.Exec("insert into public.a values (1, 1, $1)", user(1)) // delivered into the void
	first.wait(1)
	second := f.join(t, session(1, "s1"), 2, 6, nil, anyA)
	if got := ids(second.wait(1)); got[0] != 1 {
		t.Errorf("got %v", got)
	}
}

// What was missed is decided with the grants and policies of now.
func TestResumeDecidesAnew(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	db.Exec("alter table public.a enable row level security; create policy own on public.a for select to authenticated using (author = auth.uid())")
	f := newFeed(t, db)
	who := session(1, "s1")
	first := f.join(t, who, 1, 1, nil, anyA)
	first.settled(db)
	first.cut(3)
	db.Exec("insert into public.a values (1, 1, $1), (2, 2, $1), (3, 1, $2)", user(1), user(2))
	db.Exec("drop policy own on public.a; create policy own on public.a for select to authenticated using (author = auth.uid() and room = 2)")
	second := f.join(t, who, 2, 4, nil, anyA)
	second.note()
	second.settled(db)
	if d := cmp.Diff([]int{2}, ids(second.got())); d != "" {
		t.Error(d)
	}
}

// What the ring has forgotten is said to be missing.
func TestGap(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	f := newFeed(t, db, func(c *changes.Config) { c.RingBytes = 2000 })
	first := f.join(t, session(1, "s1"), 1, 1, nil, anyA)
	first.settled(db)
	first.cut(3)
	watch := f.join(t, session(2, "s2"), 9, 1, nil, anyA)
	for id := range 20 {
		db.Exec("insert into public.a values ($1, 1, $2)", id+1, user(1))
	}
	watch.wait(20)
	second := f.join(t, session(1, "s1"), 2, 4, nil, anyA)
	if r := second.note(); r.Code != sluice.CodeChangesGap {
		t.Errorf("the feed says %v", r)
	}
	db.Exec("insert into public.a values (100, 1, $1)", user(1))
	if d := cmp.Diff([]int{100}, ids(second.wait(1))); d != "" {
		t.Error(d)
	}
}

// What the ring forgets while a client is being sent what it missed, or waits for
// that, is said to be missing before anything that is behind it is sent.
func TestGapWhileReplaying(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	f := newFeed(t, db, func(c *changes.Config) { c.RingBytes, c.Resumes = 4000, 1 })
	row := func(id int) { db.Exec("insert into public.a values ($1, 1, $2)", id, user(1)) }
	cut := func(name string, conn int64) {
		x := f.join(t, session(1, name), conn, 1, nil, anyA)
		x.settled(db)
		x.cut(3)
	}
	cut("s1", 1)
	cut("s2", 2)
	row(1)
	watch := f.join(t, session(1, "s3"), 9, 1, nil, anyA)
	watch.settled(db)

	var mu sync.Mutex
	said := map[string][]string{}
	again := func(name string, conn int64, room func(context.Context) error) *client {
		return f.join(t, session(1, name), conn, 4, func(s *sluice.ChangeSubscription) {
			deliver, notify := s.Deliver, s.Notify
			note := func(what string) {
				mu.Lock()
				defer mu.Unlock()
				said[name] = append(said[name], what)
			}
			s.Deliver = func(e sluice.ChangeEvent) { note("row"); deliver(e) }
			s.Notify = func(r *sluice.Refusal) { note(string(r.Code)); notify(r) }
			s.Resume.Room = room
		}, anyA)
	}
	asked, open := make(chan struct{}), make(chan struct{})
	first := again("s1", 3, func(ctx context.Context) error { // holds the one place
		select {
		case <-asked:
		default:
			close(asked)
		}
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	<-asked
	second := again("s2", 4, nil)
	for id := range 40 { // more than the ring keeps
		row(id + 2)
	}
	watch.wait(40)
	close(open)
	for name, x := range map[string]*client{"s1": first, "s2": second} {
		if r := x.note(); r.Code != sluice.CodeChangesGap {
			t.Errorf("%s: the feed says %v", name, r)
		}
		row(100 + len(name))
		x.settled(db)
		mu.Lock()
		if said[name][0] != string(sluice.CodeChangesGap) || len(said[name]) < 2 {
			t.Errorf("%s was told %q", name, said[name])
		}
		mu.Unlock()
		db.Exec("delete from public.a where id >= 100")
	}
}

// A receiver without room is waited for, while live delivery goes on.
func TestResumeWaitsForRoom(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	f := newFeed(t, db)
	first := f.join(t, session(1, "s1"), 1, 1, nil, anyA)
	first.settled(db)
	first.cut(3)
	watch := f.join(t, session(2, "s2"), 9, 1, nil, anyA)
	db.Exec("insert into public.a select n, 1, $1 from generate_series(1, 1000) n", user(1))
	watch.wait(1000)
	room := make(chan struct{})
	second := f.join(t, session(1, "s1"), 2, 4, func(s *sluice.ChangeSubscription) {
		s.Resume.Room = func(ctx context.Context) error {
			select {
			case <-room:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}, anyA)
	third := f.join(t, session(1, "s1"), 3, 4, nil, anyA) // begins anew: the place is taken
	db.Exec("insert into public.a values (1001, 1, $1)", user(1))
	watch.wait(1001)
	third.wait(1)
	room <- struct{}{}
	second.wait(1)
	if n := len(second.got()); n > 300 {
		t.Errorf("%d changes for one time of room", n)
	}
	close(room)
	second.note()
	got := ids(second.wait(1001))
	for i, id := range got {
		if id != i+1 {
			t.Fatalf("event %d is row %d", i, id)
		}
	}
}

// A process that ends without a word is followed by one that knows its clients.
func TestResumeAfterKill(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	path := filepath.Join(t.TempDir(), "data", "positions")
	journal := func() *changes.Journal {
		j, err := changes.OpenJournal(path, "db")
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	f, kill := newJournaled(t, db, journal())
	who := session(1, "s1")
	first := f.join(t, who, 1, 1, nil, anyA)
	left := f.join(t, session(3, "s3"), 3, 1, nil, anyA)
	db.Exec("insert into public.a values (1, 1, $1)", user(1))
	first.wait(1)
	first.settled(db)
	first.sub.Confirm(first.sub.Position(), 4)
	left.sub.Close()
	f.Turn(time.Now())
	db.Exec("insert into public.a values (2, 1, $1)", user(1)) // delivered, not confirmed
	first.wait(2)
	first.settled(db)
	floor := f.Floor()
	kill()
	var flushed string
	if err := db.Admin().QueryRow(t.Context(), "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1", "sluice_"+db.Name).Scan(&flushed); err != nil {
		t.Fatal(err)
	}
	if at, err := sluice.ParseLSN(flushed); err != nil || floor == 0 || at > floor {
		t.Errorf("the server was told %s, the floor is %s: %v", flushed, floor, err)
	}
	db.Exec("insert into public.a values (3, 1, $1)", user(1)) // while nobody is there

	j := journal()
	if j.Mark() == 0 {
		t.Error("the journal does not say what was handed on")
	}
	f, kill = newJournaled(t, db, j)
	second := f.join(t, who, 1, 5, nil, anyA)
	if d := cmp.Diff([]int{2, 3}, ids(second.wait(2))); d != "" {
		t.Error(d)
	}
	if r := second.note(); r.Code != sluice.CodeChangesResumed {
		t.Errorf("the feed says %v", r)
	}
	x := f.join(t, session(3, "s3"), 4, 5, nil, anyA)
	x.settled(db)
	if len(x.got()) != 0 {
		t.Error("who left is resumed")
	}
	second.settled(db)
	second.sub.Confirm(second.sub.Position(), 6)
	kill()
	if _, err := changes.OpenJournal(path, "another database"); err != nil {
		t.Fatal(err)
	}
	f, _ = newJournaled(t, db, journal())
	third := f.join(t, who, 1, 7, nil, anyA)
	if r := third.note(); r.Code != sluice.CodeChangesGap {
		t.Errorf("in another database the feed says %v", r)
	}
	third.settled(db)
	if len(third.got()) != 0 {
		t.Error("the positions of another database were used")
	}
}

// newJournaled is newFeed with a journal; kill ends it.
func newJournaled(t *testing.T, db *pgtest.DB, j *changes.Journal) (f *feed, kill func()) {
	t.Helper()
	f = &feed{db: db}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	reader, err := wal.New(wal.Config{
		URL: db.URL("supabase_admin"), Slot: "sluice_" + db.Name, Logger: log, StatusEvery: 20 * time.Millisecond,
		Handle:  func(ctx context.Context, b sluice.ChangeBatch) error { return f.Handle(ctx, b) },
		Started: func(from sluice.LSN, gap bool) { f.Started(from, gap) }, Floor: func() sluice.LSN { return f.Floor() },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Service, err = changes.New(changes.Config{Admin: db.Pool("supabase_admin"), User: db.Pool("authenticator"), Stream: reader, Logger: log, Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	for _, run := range []func(context.Context) error{reader.Run, f.Run} {
		ended.Go(func() { _ = run(ctx) }) // they return nil
	}
	kill = sync.OnceFunc(func() { cancel(); ended.Wait(); _ = j.Close() })
	t.Cleanup(kill)
	live, cancelLive := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancelLive()
	if err := reader.Live(live); err != nil {
		t.Fatal(err)
	}
	return f, kill
}

// A client names its position itself.
func TestExplicitPosition(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	f := newFeed(t, db)
	watch := f.join(t, session(2, "s2"), 9, 1, nil, anyA)
	db.Exec("insert into public.a select n, 1, $1 from generate_series(1, 5) n", user(1))
	watch.wait(5)
	var at sluice.LSN
	for _, e := range watch.got() {
		at = e.At
	}
	if at == 0 {
		t.Fatal("events do not tell their position")
	}
	x := f.join(t, claimsOf("authenticated", ""), 3, 1, func(s *sluice.ChangeSubscription) { s.Resume.From, s.Resume.Index = at, 3 }, anyA)
	if d := cmp.Diff([]int{4, 5}, ids(x.wait(2))); d != "" {
		t.Error(d)
	}
	// One that is not kept any more, and one of a history that is not there any more.
	for i, from := range []sluice.LSN{1, 1 << 60} {
		x = f.join(t, claimsOf("authenticated", ""), int64(4+i), 1, func(s *sluice.ChangeSubscription) { s.Resume.From = from }, anyA)
		if r := x.note(); r.Code != sluice.CodeChangesGap || !strings.Contains(r.Remedy, "Load the rows anew") {
			t.Errorf("the feed says %v", r)
		}
		db.Exec("insert into public.a values ($1, 1, $2)", 6+i, user(1))
		x.wait(1)
	}
}
