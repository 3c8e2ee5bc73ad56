package changes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

// told is what one subscription was notified of.
type told struct {
	mu   sync.Mutex
	list []string // codes; "" for nil
}

func (n *told) notify(r *sluice.Refusal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r == nil {
		n.list = append(n.list, "")
		return
	}
	n.list = append(n.list, string(r.Code))
}

func (n *told) got() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

// notified is a listener with its notices.
func notified(t *testing.T, s *changes.Service, c sluice.Claims, params ...string) (*listener, *told) {
	t.Helper()
	l, n := &listener{t: t, more: make(chan struct{}, 1)}, &told{}
	req := sluice.ChangeSubscription{Claims: c, Topic: t.Name(), Deliver: l.deliver, Notify: n.notify}
	for i, p := range params {
		req.Bindings = append(req.Bindings, sluice.ChangeBinding{ID: int64(i + 1), Params: json.RawMessage(p)})
	}
	sub, _, err := s.Subscribe(t.Context(), req)
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	t.Cleanup(sub.Close)
	l.sub = sub
	return l, n
}

// lockedPolicy makes the policies of a table wait as long as the test holds a lock.
const lockedPolicy = `
create function public.waits() returns boolean language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(42); return true; end $$;
alter table public.%[1]s enable row level security;
create policy p on public.%[1]s using (public.waits())`

// hold takes the lock that lockedPolicy waits for.
func hold(t *testing.T, db *pgtest.DB) (release func()) {
	t.Helper()
	c, err := db.Pool("supabase_admin").Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "select pg_advisory_lock(42)"); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		defer c.Release()
		if _, err := c.Exec(context.WithoutCancel(t.Context()), "select pg_advisory_unlock(42)"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(release)
	return release
}

// metric returns the values of a metric by label.
func metric(t *testing.T, s *changes.Service, name string) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(s.Metrics())
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "sluice_changes_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			label := ""
			for _, l := range m.GetLabel() {
				label = l.GetValue()
			}
			out[label] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

func slowConfig(c *changes.Config) {
	c.Workers, c.SlowRun, c.QuietTime, c.CheckTimeout = 1, 20*time.Millisecond, time.Millisecond, time.Minute
}

// A table whose policies are slow holds up neither the other tables of its
// worker nor the stream; its own order stays, and it comes back to the others.
func TestSlowTableHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "slow", "quick")
	db.Exec(fmt.Sprintf(lockedPolicy, "slow"))
	h := newHand(t, db, slowConfig)
	slow, quick := h.listen(authenticated(1), onTable("slow")), h.listen(authenticated(1), onTable("quick"))
	a, b := h.relation("slow"), h.relation("quick")
	release := hold(t, db)
	first := h.commit(inserted(a, 1, 1, 1))
	for id := 2; id <= 300; id++ {
		h.commit(inserted(a, id, 1, 1), inserted(b, id, 1, 1))
	}
	quick.wait(299)
	if got := slow.got(); len(got) > 0 {
		t.Errorf("%d changes came past a policy that has not answered", len(got))
	}
	if got := h.Settled(h.next + 1); got != first {
		t.Errorf("settled %s, want %s", got, first)
	}
	if q := metric(t, h.Service, "queue_changes"); q["public.slow"] == 0 {
		t.Errorf("queues %v", q)
	}
	release()
	if got := ids(slow.wait(300)); !slices.IsSorted(got) || len(got) != 300 || got[0] != 1 {
		t.Errorf("got %v", got)
	}
	eventually(t, "everything is settled", func() bool { return h.Settled(h.next+1) == h.next+1 })
	eventually(t, "the table is back", func() bool { return len(metric(t, h.Service, "queue_changes")) == 1 })
	h.commit(inserted(a, 301, 1, 1))
	slow.wait(301)
	if n := h.Metrics().GivenUp.Load(); n != 0 {
		t.Errorf("%d changes were given up", n)
	}
}

// What waits for a slow table is bounded: the oldest is given up, loudly.
func TestSlowTableGivesUpTheOldest(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "slow")
	db.Exec(fmt.Sprintf(lockedPolicy, "slow"))
	h := newHand(t, db, slowConfig, func(c *changes.Config) { c.OwnChanges = 10 })
	l, inserts := notified(t, h.Service, authenticated(1), onTable("slow"))
	_, updates := notified(t, h.Service, authenticated(2), `{"event":"UPDATE","schema":"public","table":"slow"}`)
	rel := h.relation("slow")
	release := hold(t, db)
	start := time.Now()
	h.commit(inserted(rel, 1, 1, 1))
	eventually(t, "the table has its own worker", func() bool { return len(metric(t, h.Service, "queue_changes")) == 2 })
	for id := 2; id <= 100; id++ {
		h.commit(inserted(rel, id, 1, 1))
	}
	release()
	given := int(h.Metrics().GivenUp.Load())
	got := ids(l.wait(100 - given))
	if given < 80 || given > 98 || got[0] != 1 || got[len(got)-1] != 100 || !slices.IsSorted(got) {
		t.Errorf("%d given up, got %v", given, got)
	}
	if d := metric(t, h.Service, "dropped_total"); int(d["given_up"]) != given {
		t.Errorf("dropped %v", d)
	}
	if got := inserts.got(); !slices.Equal(got, []string{"RlsPolicyTimeout"}) && time.Since(start) < time.Minute {
		t.Errorf("told %q, want once in a minute", got)
	}
	if got := updates.got(); len(got) > 0 {
		t.Errorf("who listens to no INSERT was told %q", got)
	}
	eventually(t, "everything is settled", func() bool { return h.Settled(h.next+1) == h.next+1 })
}

// While the database cannot be reached nothing is given up: the stream waits.
func TestOutageGivesNothingUp(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "slow")
	db.Exec(fmt.Sprintf(lockedPolicy, "slow"))
	// After the outage a run may take as long as SlowRun.
	h := newHand(t, db, slowConfig, func(c *changes.Config) { c.OwnChanges, c.SlowRun = 5, 3*time.Second })
	l := h.listen(authenticated(1), onTable("slow"))
	rel := h.relation("slow")
	release := hold(t, db)
	h.commit(inserted(rel, 1, 1, 1))
	eventually(t, "the table has its own worker", func() bool { return len(metric(t, h.Service, "queue_changes")) == 2 })
	// Only superusers may connect from now on.
	db.Exec(fmt.Sprintf("alter database %q connection limit 0", db.Name))
	eventually(t, "the database is away", func() bool {
		db.Exec("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'authenticator' and datname = current_database()")
		return h.Away()
	})
	var handing sync.WaitGroup
	handing.Go(func() { // ends when there is room; waited for below
		for id := 2; id <= 30; id++ {
			h.commit(inserted(rel, id, 1, 1))
		}
	})
	eventually(t, "the queue is full", func() bool { return metric(t, h.Service, "queue_changes")["public.slow"] == 5 })
	release()
	db.Exec(fmt.Sprintf("alter database %q connection limit -1", db.Name))
	got := ids(l.wait(30))
	handing.Wait()
	if !slices.IsSorted(got) || len(got) != 30 || h.Metrics().GivenUp.Load() != 0 {
		t.Errorf("%d given up, got %v", h.Metrics().GivenUp.Load(), got)
	}
}

// Rows whose policy takes too long cost themselves alone: not those that were
// decided with them, nor another user's. Who misses them is told.
func TestSlowRowsCostThemselves(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a", "b")
	db.Exec(`alter table public.a enable row level security;
create policy p on public.a using (room <> 13 or auth.uid() = '` + user(2) + `' or pg_sleep(600) is null)`)
	h := newHand(t, db, func(c *changes.Config) { c.Workers, c.CheckTimeout = 1, 1500*time.Millisecond })
	slow, slowTold := notified(t, h.Service, authenticated(1), onTable("a"))
	quick, quickTold := notified(t, h.Service, authenticated(2), onTable("a"))
	g := h.gate(authenticated(1), onTable("b"))
	a, b := h.relation("a"), h.relation("b")
	h.commit(inserted(b, 1, 1, 1))
	<-g.reached
	for id := 1; id <= 6; id++ {
		room := 1
		if id == 4 {
			room = 13
		}
		h.commit(inserted(a, id, room, 1))
	}
	close(g.opened)
	if got := ids(quick.wait(6)); !slices.Equal(got, []int{1, 2, 3, 4, 5, 6}) {
		t.Errorf("who is not slow got %v", got)
	}
	if got := ids(slow.wait(5)); !slices.Equal(got, []int{1, 2, 3, 5, 6}) {
		t.Errorf("who is slow got %v", got)
	}
	eventually(t, "who misses a row is told", func() bool { return slices.Equal(slowTold.got(), []string{"RlsPolicyTimeout"}) })
	if got := quickTold.got(); len(got) > 0 {
		t.Errorf("who misses nothing was told %q", got)
	}
}

// A subscription hears once that the only table of a binding has left the
// publication, and once that it is back.
func TestTableLeavesThePublication(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a", "b")
	f := newFeed(t, db)
	l, one := notified(t, f.Service, authenticated(1), onTable("a"), onTable("b"))
	_, other := notified(t, f.Service, authenticated(1), `{"schema":"public"}`)
	is := func(want ...string) func() bool { return func() bool { return slices.Equal(one.got(), want) } }
	db.Exec("alter publication supabase_realtime drop table public.a")
	eventually(t, "the table has left", is("TableNotPublished"))
	db.Exec("comment on table public.b is 'another change of the catalog'; alter table public.b add column more text")
	db.Exec("alter publication supabase_realtime drop table public.b")
	eventually(t, "both have left", is("TableNotPublished", "TableNotPublished"))
	eventually(t, "none is left", func() bool { return slices.Equal(other.got(), []string{"TableNotPublished"}) })
	db.Exec("alter publication supabase_realtime add table public.b")
	eventually(t, "a binding for the schema has a table", func() bool { return slices.Equal(other.got(), []string{"TableNotPublished", ""}) })
	db.Exec("alter publication supabase_realtime add table public.a")
	eventually(t, "both are back", is("TableNotPublished", "TableNotPublished", ""))
	db.Exec("insert into public.a values (1, 1, null)")
	l.wait(1)
}
