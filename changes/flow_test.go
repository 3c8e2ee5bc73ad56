package changes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

// hand is a service without a stream: the test hands batches on.
type hand struct {
	*changes.Service
	t    *testing.T
	db   *pgtest.DB
	next sluice.LSN // far ahead of the database's
}

func newHand(t *testing.T, db *pgtest.DB, change ...func(*changes.Config)) *hand {
	t.Helper()
	cfg := changes.Config{
		Admin: db.Pool("supabase_admin"), User: db.Pool("authenticator"), Stream: alwaysLive{}, SlowRun: time.Hour,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	svc, err := changes.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { _ = svc.Run(ctx) }) // it returns nil
	t.Cleanup(func() { cancel(); ended.Wait() })
	return &hand{Service: svc, t: t, db: db, next: 1 << 60}
}

// relation describes a table with the columns id, room and author.
func (h *hand) relation(table string) *sluice.Relation {
	h.t.Helper()
	var oid uint32
	if err := h.db.Admin().QueryRow(h.t.Context(), "select ('public.' || $1)::regclass::oid", table).Scan(&oid); err != nil {
		h.t.Fatal(err)
	}
	return &sluice.Relation{OID: oid, Schema: "public", Name: table, Identity: 'd', Columns: []sluice.Column{
		{Name: "id", Type: 23, Key: true}, {Name: "room", Type: 23}, {Name: "author", Type: 2950},
	}}
}

func inserted(rel *sluice.Relation, id, room, author int) sluice.Change {
	return sluice.Change{Kind: sluice.ChangeInsert, Relation: rel, New: []sluice.Value{
		{Kind: sluice.ValueText, Text: strconv.AppendInt(nil, int64(id), 10)},
		{Kind: sluice.ValueText, Text: strconv.AppendInt(nil, int64(room), 10)},
		{Kind: sluice.ValueText, Text: []byte(user(author))},
	}}
}

// commit hands one transaction on and returns its position.
func (h *hand) commit(list ...sluice.Change) sluice.LSN {
	h.t.Helper()
	h.next++
	h.give(sluice.ChangeBatch{Commit: h.next, CommitTime: commitTime(h.next), XID: 3, Last: true, Changes: list})
	return h.next
}

func (h *hand) give(b sluice.ChangeBatch) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	if err := h.Handle(ctx, b); err != nil {
		h.t.Fatalf("Handle: %v", err)
	}
}

func commitTime(l sluice.LSN) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(l-1<<60) * time.Second)
}

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not reached: %s", what)
		}
	}
}

// gate is a listener that keeps the worker at its first event until it is opened.
type gate struct {
	*listener
	reached, opened chan struct{}
	once            sync.Once
}

func (h *hand) gate(c sluice.Claims, params string) *gate {
	h.t.Helper()
	g := &gate{listener: &listener{t: h.t, more: make(chan struct{}, 1)}, reached: make(chan struct{}), opened: make(chan struct{})}
	g.sub = h.subscribe(c, params, func(e sluice.ChangeEvent) {
		g.deliver(e)
		g.once.Do(func() { close(g.reached); <-g.opened })
	})
	return g
}

func (h *hand) listen(c sluice.Claims, params string) *listener {
	h.t.Helper()
	l := &listener{t: h.t, more: make(chan struct{}, 1)}
	l.sub = h.subscribe(c, params, l.deliver)
	return l
}

func (h *hand) subscribe(c sluice.Claims, params string, deliver func(sluice.ChangeEvent)) sluice.LiveSubscription {
	h.t.Helper()
	sub, _, err := h.Subscribe(h.t.Context(), sluice.ChangeSubscription{
		Claims: c, Topic: h.t.Name(), Deliver: deliver, Bindings: []sluice.ChangeBinding{{ID: 1, Params: json.RawMessage(params)}},
	})
	if err != nil {
		h.t.Fatalf("Subscribe: %v", err)
	}
	h.t.Cleanup(sub.Close)
	return sub
}

func flowDB(t *testing.T, tables ...string) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t)
	db.Exec("create table public.members (room int, user_id uuid, primary key (room, user_id)); grant select on public.members to authenticated")
	for _, name := range tables {
		db.Exec(fmt.Sprintf(`create table public.%[1]s (id int primary key, room int not null, author uuid);
grant select on public.%[1]s to authenticated;
alter publication supabase_realtime add table public.%[1]s`, name))
	}
	return db
}

const memberPolicy = `alter table public.%[1]s enable row level security;
create policy p on public.%[1]s using (exists (select from public.members m where m.room = %[1]s.room and m.user_id = auth.uid()))`

func onTable(name string) string { return fmt.Sprintf(`{"schema":"public","table":%q}`, name) }

// Transactions that wait are decided together, in order, each with its own
// commit; Settled stands at the first of them until they are out.
func TestWaitingTransactionsAreOneRun(t *testing.T) {
	t.Parallel()
	h := newHand(t, flowDB(t, "a"))
	l := h.gate(authenticated(1), onTable("a"))
	rel, unheard := h.relation("a"), &sluice.Relation{OID: 1, Schema: "public", Name: "unheard"}
	if got := h.Settled(77); got != 77 {
		t.Errorf("idle: %s", got)
	}
	first := h.commit(inserted(rel, 1, 1, 1))
	<-l.reached
	var second sluice.LSN
	for id := 2; id <= 100; id++ {
		if at := h.commit(sluice.Change{Kind: sluice.ChangeInsert, Relation: unheard}, inserted(rel, id, 1, 1)); id == 2 {
			second = at
		}
	}
	handed := h.next + 1
	if got := h.Settled(handed); got != first {
		t.Errorf("while the first is being handed out: %s, want %s", got, first)
	}
	if got := h.Settled(first - 1); got != first-1 {
		t.Errorf("no further than what was handed on: %s", got)
	}
	close(l.opened)
	got := l.wait(100)
	eventually(t, "everything is settled", func() bool { return h.Settled(handed) == handed })
	if runs, rows := h.Metrics().Runs.Load(), h.Metrics().Rows.Load(); runs != 2 || rows != 100 {
		t.Errorf("%d runs of %d rows, want 2 of 100", runs, rows)
	}
	var want []int
	for i := range 100 {
		want = append(want, i+1)
		at := commitTime(first + sluice.LSN(i)).Format("2006-01-02T15:04:05.000Z")
		if c := got[i].Data.CommitTimestamp; c == nil || *c != at {
			t.Errorf("event %d has commit time %v, want %s", i, c, at)
		}
	}
	if diff := cmp.Diff(want, ids(got)); diff != "" {
		t.Error(diff)
	}
	if second != first+1 {
		t.Error("positions are not as the test assumes")
	}
	// A transaction that nobody listens to is settled at once.
	h.commit(sluice.Change{Kind: sluice.ChangeInsert, Relation: unheard})
	if got := h.Settled(h.next + 1); got != h.next+1 {
		t.Errorf("behind a transaction that nobody listens to: %s", got)
	}
}

// What was described anew, or came behind a change of the catalog, is another
// run, and nothing behind it overtakes it.
func TestRunsHaveOneDescription(t *testing.T) {
	t.Parallel()
	h := newHand(t, flowDB(t, "a"))
	l := h.gate(authenticated(1), onTable("a"))
	rel := h.relation("a")
	again := *rel
	h.commit(inserted(rel, 1, 1, 1))
	<-l.reached
	h.commit(inserted(rel, 2, 1, 1)) // one
	h.commit(inserted(rel, 3, 1, 1))
	h.commit(inserted(&again, 4, 1, 1)) // two
	h.commit(inserted(rel, 5, 1, 1))    // three
	h.commit(sluice.Change{Kind: sluice.ChangeCatalog}, inserted(rel, 6, 1, 1))
	h.commit(inserted(rel, 7, 1, 1)) // four, with 6
	for id := 8; id < 8+2*sluice.MaxBatchChanges; id++ {
		h.commit(inserted(rel, id, 1, 1)) // 254 go with 6 and 7, then two more runs
	}
	close(l.opened)
	n := 7 + 2*sluice.MaxBatchChanges
	got := ids(l.wait(n))
	if !slices.IsSorted(got) || len(got) != n {
		t.Errorf("%d events, in order %t", len(got), slices.IsSorted(got))
	}
	eventually(t, "everything is settled", func() bool { return h.Settled(h.next+1) == h.next+1 })
	if runs := h.Metrics().Runs.Load(); runs != 7 {
		t.Errorf("%d runs, want 7", runs)
	}
}

// A subscription that began between two transactions of one run has the later
// one alone.
func TestStartWithinARun(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a", "b")
	h := newHand(t, db, func(c *changes.Config) { c.Workers = 1 })
	early := h.listen(authenticated(1), onTable("a"))
	l := h.gate(authenticated(1), onTable("b"))
	var now string
	if err := db.Admin().QueryRow(t.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&now); err != nil {
		t.Fatal(err)
	}
	between, err := sluice.ParseLSN(now)
	if err != nil {
		t.Fatal(err)
	}
	db.Exec("insert into public.members values (1, gen_random_uuid())") // the log goes on
	late := h.listen(authenticated(1), onTable("a"))
	a, b := h.relation("a"), h.relation("b")
	h.give(sluice.ChangeBatch{Commit: between, CommitTime: time.Now(), XID: 3, Last: true, Changes: []sluice.Change{inserted(b, 1, 1, 1)}})
	<-l.reached
	h.give(sluice.ChangeBatch{Commit: between, CommitTime: time.Now(), XID: 3, First: 1, Last: true, Changes: []sluice.Change{inserted(a, 1, 1, 1)}})
	h.commit(inserted(a, 2, 1, 1))
	close(l.opened)
	if got := ids(early.wait(2)); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("who was there gets %v", got)
	}
	if got := ids(late.wait(1)); !slices.Equal(got, []int{2}) {
		t.Errorf("who came in between gets %v", got)
	}
	eventually(t, "everything is settled", func() bool { return h.Settled(h.next+1) == h.next+1 })
	if runs := h.Metrics().Runs.Load(); runs != 2 {
		t.Errorf("%d runs: the test is about one for both", runs)
	}
}

// A run waits for every one of its transactions: the later one's membership
// decides for its own row.
func TestRunWaitsForAllItsTransactions(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a", "b")
	db.Exec(fmt.Sprintf(memberPolicy, "a"))
	h := newHand(t, db, func(c *changes.Config) { c.Workers = 1 })
	l := h.gate(authenticated(1), onTable("b"))
	member := h.listen(authenticated(1), onTable("a"))
	a, b := h.relation("a"), h.relation("b")
	h.commit(inserted(b, 1, 1, 1))
	<-l.reached
	var commits []func()
	for room := 1; room <= 2; room++ {
		tx, err := db.Pool("supabase_admin").Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // of a test that failed
		var xid string
		if _, err = tx.Exec(t.Context(), "insert into public.members values ($1, $2::text::uuid)", room, user(1)); err == nil {
			err = tx.QueryRow(t.Context(), "select pg_current_xact_id()::text").Scan(&xid)
		}
		if err != nil {
			t.Fatal(err)
		}
		commits = append(commits, func() {
			if err := tx.Commit(t.Context()); err != nil {
				t.Error(err)
			}
		})
		id, _ := strconv.ParseUint(xid, 10, 64)
		h.next++
		h.give(sluice.ChangeBatch{Commit: h.next, CommitTime: time.Now(), XID: id, Last: true, Changes: []sluice.Change{inserted(a, room, room, 1)}})
	}
	close(l.opened)
	retries := func() int64 { return h.Metrics().VisibleRetries.Load() }
	eventually(t, "the run waits", func() bool { return retries() > 0 })
	commits[0]()
	had := retries()
	eventually(t, "the run waits for the second", func() bool { return retries() > had+1 })
	commits[1]()
	if got := ids(member.wait(2)); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("got %v", got)
	}
}

// Handle waits while a worker is behind, and gives up with its context; what it
// did not take is not waited for by Settled.
func TestHandleWaits(t *testing.T) {
	t.Parallel()
	h := newHand(t, flowDB(t, "a"), func(c *changes.Config) { c.QueueJobs = 2 })
	l := h.gate(authenticated(1), onTable("a"))
	rel := h.relation("a")
	first := h.commit(inserted(rel, 1, 1, 1))
	<-l.reached
	h.commit(inserted(rel, 2, 1, 1))
	h.commit(inserted(rel, 3, 1, 1))
	ctx, cancel := context.WithCancelCause(t.Context())
	answer := make(chan error)
	full := sluice.ChangeBatch{Commit: h.next + 1, XID: 3, Last: true, Changes: []sluice.Change{inserted(rel, 4, 1, 1)}}
	go func() { answer <- h.Handle(ctx, full) }() // ends with ctx; received below
	cancel(nil)
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("Handle of a full queue: %v", err)
	}
	go func() { answer <- h.Handle(t.Context(), full) }() // ends when there is room; received below
	if got := h.Settled(h.next + 1); got != first {
		t.Errorf("settled %s", got)
	}
	close(l.opened)
	if err := <-answer; err != nil {
		t.Error(err)
	}
	if got := ids(l.wait(4)); !slices.Equal(got, []int{1, 2, 3, 4}) {
		t.Errorf("got %v", got)
	}
	eventually(t, "everything is settled", func() bool { return h.Settled(h.next+2) == h.next+2 })
}

// A value that the stream leaves out is looked up once its transaction can be
// seen, for a filter as for a policy.
func TestLookUpWaitsForTheCommit(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	db.Exec("alter table public.a add column more int generated always as (room * 2) stored")
	h := newHand(t, db)
	l := h.listen(authenticated(1), `{"schema":"public","table":"a","filter":"more=eq.14"}`)
	tx, err := db.Pool("supabase_admin").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // of a test that failed
	var xid string
	if err := tx.QueryRow(t.Context(), "insert into public.a values (1, 7, null) returning pg_current_xact_id()::text").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	id, _ := strconv.ParseUint(xid, 10, 64)
	h.next++
	h.give(sluice.ChangeBatch{Commit: h.next, CommitTime: time.Now(), XID: id, Last: true, Changes: []sluice.Change{inserted(h.relation("a"), 1, 7, 1)}})
	eventually(t, "the look-up waits", func() bool { return h.Metrics().VisibleRetries.Load() > 0 })
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wait(1)
}
