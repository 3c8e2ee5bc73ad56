package wal_test

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/wal"
)

func flushed(t *testing.T, db *pgtest.DB) sluice.LSN {
	t.Helper()
	at, err := sluice.ParseLSN(value[string](t, db, "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1", "sluice_"+db.Name))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func position(t *testing.T, db *pgtest.DB) sluice.LSN {
	t.Helper()
	at, err := sluice.ParseLSN(value[string](t, db, "select pg_current_wal_insert_lsn()::text"))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// A position that somebody may come back to is not passed; a later reader streams
// again from there, without the messages that were broadcast.
func TestFloorHolds(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	var floor atomic.Uint64
	quick := func(c *wal.Config) {
		c.StatusEvery = 10 * time.Millisecond
		c.Floor = func() sluice.LSN { return sluice.LSN(floor.Load()) }
	}
	s := newSink()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	cfg := wal.Config{URL: db.URL("supabase_admin"), Slot: "sluice_" + db.Name, Handle: s.handle, Logger: slog.New(slog.DiscardHandler)}
	quick(&cfg)
	r, err := wal.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- r.Run(ctx) }() // waited for below
	live(t, r)
	db.Exec("insert into public.t values (1)")
	s.wait(t, 1)
	at := position(t, db)
	floor.Store(uint64(at))
	db.Exec("insert into public.t values (2)")
	db.Exec(insertMessage, "before")
	s.wait(t, 3)
	mark := position(t, db)
	db.Exec("insert into public.t values (3)")
	db.Exec(insertMessage, "after")
	s.wait(t, 5)
	until(t, "the floor is confirmed", func() bool { return flushed(t, db) == at })
	if st := r.State(); st.Confirmed != at || st.Handed <= at || st.LetGo != 0 {
		t.Errorf("%+v, floor %s", st, at)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := flushed(t, db); got != at {
		t.Errorf("at the end %s is confirmed, not %s", got, at)
	}

	again, messages := newSink(), newSink()
	var from atomic.Uint64
	r = background(t, db, again, quick, func(c *wal.Config) {
		c.Messages, c.MessagesFrom = messages.handle, func() sluice.LSN { return mark }
		c.Started = func(at sluice.LSN, gap bool) {
			if gap {
				t.Error("a gap")
			}
			from.Store(uint64(at))
		}
	})
	live(t, r)
	got := again.wait(t, 4)
	if got[0] != "INSERT public.t 2,null,null" || sluice.LSN(from.Load()) != at {
		t.Errorf("begins at %s with %q", sluice.LSN(from.Load()), got)
	}
	if got := eventsOf(messages.wait(t, 1)); !slices.Equal(got, []string{"after"}) {
		t.Errorf("broadcast again: %q", got)
	}
	floor.Store(0)
	until(t, "without a floor all is confirmed", func() bool { return flushed(t, db) >= mark })
}

// More than the budget is not held back.
func TestFloorIsLetGo(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	const budget = 64 << 10
	var floor atomic.Uint64
	s := newSink()
	r := background(t, db, s, func(c *wal.Config) {
		c.StatusEvery, c.MaxHeld = 10*time.Millisecond, budget
		c.Floor = func() sluice.LSN { return sluice.LSN(floor.Load()) }
	})
	live(t, r)
	at := position(t, db)
	floor.Store(uint64(at))
	for i := range 20 {
		db.Exec("insert into public.t select $1, string_agg(md5(random()::text), '') from generate_series(1, 250)", i)
	}
	until(t, "it is let go", func() bool { return r.State().LetGo >= 1 && flushed(t, db) > at })
	// Between two words to the server it is what has come since as well.
	until(t, "no more than the budget is held back", func() bool {
		st := r.State()
		return int64(st.Handed-st.Confirmed) <= budget
	})
}

// The failover option is refused where it is not known, not ignored.
func TestFailoverSlot(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	r := background(t, db, newSink(), func(c *wal.Config) { c.Failover = true })
	if value[int](t, db, "select current_setting('server_version_num')::int") < 170000 {
		untilRefused(t, r, "a slot that survives a failover needs PostgreSQL 17")
		return
	}
	live(t, r)
	if !value[bool](t, db, "select failover from pg_replication_slots where slot_name = $1", "sluice_"+db.Name) {
		t.Error("the slot does not survive a failover")
	}
}
