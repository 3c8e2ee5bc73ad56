package wal_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/wal"
)

// background runs a reader that need not come up.
func background(t *testing.T, db *pgtest.DB, s *sink, change ...func(*wal.Config)) *wal.Reader {
	t.Helper()
	ended := make(chan error, 1)
	t.Cleanup(func() { // after that of started
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return started(t, db, s, ended, change...)
}

// started runs a reader until t ends; what Run returns goes to ended.
func started(t *testing.T, db *pgtest.DB, s *sink, ended chan<- error, change ...func(*wal.Config)) *wal.Reader {
	t.Helper()
	cfg := wal.Config{
		URL: db.URL("supabase_admin"), Slot: "sluice_" + db.Name, Handle: s.handle,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	r, err := wal.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx; waited for by the cleanup
		defer close(done)
		ended <- r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// until asks again and again, for half a minute at most.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// untilRefused waits for a reason why the reader does not stream.
func untilRefused(t *testing.T, r *wal.Reader, text string) {
	t.Helper()
	until(t, "an error with "+text, func() bool { return strings.Contains(fmt.Sprint(r.State().Err), text) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var refusal *sluice.Refusal
	if err := r.Live(ctx); !errors.As(err, &refusal) || refusal.Code != sluice.CodeUnableToConnect {
		t.Errorf("Live: %v", err)
	}
}

func live(t *testing.T, r *wal.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Live(ctx); err != nil {
		t.Fatalf("Live: %v (%v)", err, r.State().Err)
	}
}

func value[T any](t *testing.T, db *pgtest.DB, sql string, args ...any) (v T) {
	t.Helper()
	if err := db.Admin().QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// replication opens a replication connection that is not ours.
func replication(t *testing.T, db *pgtest.DB, name string) *pgconn.PgConn {
	t.Helper()
	cfg, err := pgx.ParseConfig(string(db.URL("supabase_admin")))
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["replication"], cfg.RuntimeParams["application_name"] = "database", name
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn.PgConn()
}

// The slot is another program's: nothing is taken from it, and the reader comes
// up by itself once it is free.
// spec: pgchanges:117
func TestSlotIsTaken(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	slot := "sluice_" + db.Name
	db.Exec("select pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	other := replication(t, db, "another program")
	other.Exec(t.Context(), fmt.Sprintf(`START_REPLICATION SLOT %q LOGICAL 0/0 (proto_version '1', publication_names '"sluice"')`, slot))
	until(t, "the other program streams", func() bool {
		return value[bool](t, db, "select active from pg_replication_slots where slot_name = $1", slot)
	})
	s := newSink()
	r := background(t, db, s)
	untilRefused(t, r, "is not Sluice; end it with: select pg_terminate_backend(")
	db.Exec("insert into public.t values (1)")
	db.Exec("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1", slot)
	live(t, r)
	if d := cmp.Diff([]string{"INSERT public.t 1,null,null"}, s.wait(t, 1)); d != "" {
		t.Error(d)
	}
}

func TestSlotOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	db, other := pgtest.New(t), pgtest.New(t)
	other.Exec("select pg_create_logical_replication_slot($1, 'pgoutput')", "sluice_"+db.Name)
	r := background(t, db, newSink())
	untilRefused(t, r, fmt.Sprintf("belongs to database %q", other.Name))
	other.Exec("select pg_drop_replication_slot($1)", "sluice_"+db.Name)
	live(t, r)
}

// A slot that is dropped under the reader is made again, and the gap is counted.
func TestSlotIsDropped(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	s := newSink()
	r := background(t, db, s)
	live(t, r)
	db.Exec("insert into public.t values (1)")
	s.wait(t, 1)
	slot := "sluice_" + db.Name
	until(t, "the slot is dropped", func() bool {
		_, _ = db.Admin().Exec(t.Context(), "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active", slot)
		_, err := db.Admin().Exec(t.Context(), "select pg_drop_replication_slot($1)", slot)
		return err == nil
	})
	until(t, "a gap is counted", func() bool { return r.State().Gaps == 1 })
	live(t, r)
	db.Exec("insert into public.t values (2)")
	got := s.wait(t, 2)
	if d := cmp.Diff("INSERT public.t 2,null,null", got[len(got)-1]); d != "" {
		t.Error(d)
	}
}

// A connection that is cut costs and repeats nothing.
func TestConnectionIsCut(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	s := newSink()
	r := background(t, db, s)
	live(t, r)
	var want []string
	for i := range 30 {
		db.Exec("insert into public.t select $1::int * 10 + g from generate_series(0, 9) g", i)
		for g := range 10 {
			want = append(want, fmt.Sprintf("INSERT public.t %d,null,null", i*10+g))
		}
		if i%5 == 4 {
			db.Exec("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active", "sluice_"+db.Name)
		}
	}
	if d := cmp.Diff(want, s.wait(t, len(want))); d != "" {
		t.Error(d)
	}
	if g := r.State().Gaps; g != 0 {
		t.Errorf("%d gaps", g)
	}
}

// WAL that the slot needs is removed: the slot is made again, the gap is counted,
// and what comes later arrives.
// spec: pgchanges:121
func TestSlotIsInvalidated(t *testing.T) {
	t.Parallel()
	db := pgtest.Private(t)
	db.ExecAs("postgres", table)
	s := newSink()
	_, stop := start(t, db, s)
	db.Exec("insert into public.t values (1)")
	s.wait(t, 1)
	stop()
	db.Exec("alter system set max_slot_wal_keep_size = '1MB'")
	db.Exec("select pg_reload_conf()")
	until(t, "the slot is lost", func() bool {
		db.Exec("select pg_switch_wal()")
		db.Exec("insert into public.t select g, repeat('x', 1000) from generate_series(2, 2000) g; delete from public.t where id > 1; checkpoint")
		return value[string](t, db, "select wal_status from pg_replication_slots") == "lost"
	})
	db.Exec("alter system reset max_slot_wal_keep_size")
	db.Exec("select pg_reload_conf()")
	r := background(t, db, s)
	live(t, r)
	if g := r.State().Gaps; g != 1 {
		t.Errorf("%d gaps", g)
	}
	db.Exec("insert into public.t values (5000)")
	got := s.wait(t, 2)
	if d := cmp.Diff("INSERT public.t 5000,null,null", got[len(got)-1]); d != "" {
		t.Error(d)
	}
}

func TestWalLevel(t *testing.T) {
	t.Parallel()
	db := pgtest.Private(t)
	db.ExecAs("postgres", table)
	db.Exec("alter system set wal_level = 'replica'")
	db.Restart()
	s := newSink()
	r := background(t, db, s)
	untilRefused(t, r, "set wal_level = logical and restart PostgreSQL")
	db.Exec("alter system reset wal_level")
	db.Restart()
	live(t, r)
	db.Exec("insert into public.t values (1)")
	s.wait(t, 1)
}

func TestNoReplicationRight(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	r := background(t, db, newSink(), func(c *wal.Config) { c.URL = db.URL("authenticator") })
	until(t, "refused", func() bool { return !strings.Contains(r.State().Err.Error(), "not started") })
	if err := r.State().Err; !strings.Contains(err.Error(), "connect for the change stream") || strings.Contains(err.Error(), "password=") {
		t.Errorf("error %v", err)
	}
}

// spec: pgchanges:118
func TestNoSenderFree(t *testing.T) {
	t.Parallel()
	db := pgtest.Private(t)
	db.ExecAs("postgres", table)
	db.Exec("alter system set max_wal_senders = 1")
	db.Restart()
	other := replication(t, db, "another program")
	s := newSink()
	r := background(t, db, s)
	untilRefused(t, r, "max_wal_senders")
	if err := other.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	live(t, r)
	db.Exec("insert into public.t values (1)")
	s.wait(t, 1)
}

func TestNoSlotFree(t *testing.T) {
	t.Parallel()
	db := pgtest.Private(t)
	db.Exec("alter system set max_replication_slots = 1")
	db.Restart()
	db.Exec("select pg_create_physical_replication_slot('other')")
	r := background(t, db, newSink())
	untilRefused(t, r, "all of max_replication_slots are in use")
	db.Exec("select pg_drop_replication_slot('other')")
	live(t, r)
}

// The publication that is streamed is dropped and made again while nobody reads:
// a slot cannot decode what was written in between. It is advanced, the gap is
// counted, and the stream goes on.
func TestStreamedPublicationIsDroppedWhileTheSlotLags(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("made_again=%t", again), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.ExecAs("postgres", table)
			s := newSink()
			_, stop := start(t, db, s)
			db.Exec("insert into public.t values (1)")
			s.wait(t, 1)
			stop()
			db.Exec("insert into public.t values (2)")
			// Where there are no event triggers, nobody makes it again at once.
			trigger := func(how string) {
				db.Exec("alter event trigger sluice_sql_drop " + how + "; alter event trigger sluice_ddl_command_end " + how)
			}
			trigger("disable")
			db.Exec("drop publication sluice")
			trigger("enable always")
			db.Exec("insert into public.t values (3)")
			if again {
				db.Exec("select sluice.sync_publication()")
			}
			r := background(t, db, s)
			until(t, "a gap is counted", func() bool { return r.State().Gaps == 1 })
			n := 100
			until(t, "a new row arrives", func() bool {
				n++
				db.Exec("insert into public.t values ($1)", n)
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.lines) > 0 && len(s.lines[len(s.lines)-1]) == len("INSERT public.t 100,null,null")
			})
			if g := r.State().Gaps; g != 1 {
				t.Errorf("%d gaps", g)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.lines) > 1 && s.lines[1] == s.lines[0] {
				t.Errorf("repeated: %q", s.lines)
			}
		})
	}
}

// spec: pgchanges:95
func TestMembershipKeepsTheSlot(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	s := newSink()
	r := background(t, db, s)
	live(t, r)
	pid := value[int](t, db, "select active_pid from pg_replication_slots where slot_name = $1", "sluice_"+db.Name)
	db.ExecAs("postgres", "create table public.u (id int primary key); alter publication supabase_realtime add table public.u")
	db.ExecAs("postgres", "insert into public.u values (1); insert into public.t values (1)")
	db.ExecAs("postgres", "alter publication supabase_realtime drop table public.t")
	db.ExecAs("postgres", "insert into public.t values (2); insert into public.u values (2)")
	db.ExecAs("postgres", "alter publication supabase_realtime set table public.t")
	db.ExecAs("postgres", "insert into public.t values (3); insert into public.u values (3)")
	want := []string{"INSERT public.u 1", "INSERT public.t 1,null,null", "INSERT public.u 2", "INSERT public.t 3,null,null"}
	if d := cmp.Diff(want, s.wait(t, len(want))); d != "" {
		t.Error(d)
	}
	if now := value[int](t, db, "select active_pid from pg_replication_slots where slot_name = $1", "sluice_"+db.Name); now != pid {
		t.Error("the slot was let go meanwhile")
	}
}

// A position is confirmed once the handler is done with what lies before it, and
// not while it hangs, however often the server is answered.
func TestConfirmsAfterHandOver(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	s := newSink()
	s.block = make(chan struct{})
	r := background(t, db, s, func(c *wal.Config) { c.StatusEvery = 10 * time.Millisecond })
	live(t, r)
	db.Exec("insert into public.t values (1)")
	behind := value[string](t, db, "select pg_current_wal_insert_lsn()::text")
	slot := "sluice_" + db.Name
	const replies = "select a.reply_time::text from pg_replication_slots s join pg_stat_replication a on a.pid = s.active_pid where slot_name = $1"
	last := value[string](t, db, replies, slot)
	for range 5 {
		until(t, "another status", func() bool {
			now := value[string](t, db, replies, slot)
			defer func() { last = now }()
			return now != last
		})
	}
	const confirmed = "select confirmed_flush_lsn >= $2::pg_lsn from pg_replication_slots where slot_name = $1"
	if value[bool](t, db, confirmed, slot, behind) {
		t.Error("confirmed while the handler hangs")
	}
	close(s.block)
	s.wait(t, 1)
	until(t, "the position is confirmed", func() bool { return value[bool](t, db, confirmed, slot, behind) })
	until(t, "the state tells", func() bool { return r.State().Confirmed > 0 })
}

// The server asks whether the reader is there, and ends a connection that does
// not answer. It is answered at once, whatever StatusEvery says, with a position
// that lets WAL go although nothing of ours is written.
func TestAnswersKeepalives(t *testing.T) {
	t.Parallel()
	db := pgtest.Private(t)
	db.ExecAs("postgres", table)
	db.Exec("alter system set wal_sender_timeout = '400ms'")
	db.Exec("select pg_reload_conf()")
	r := background(t, db, newSink(), func(c *wal.Config) { c.StatusEvery = time.Hour })
	live(t, r)
	pid := value[int](t, db, "select active_pid from pg_replication_slots")
	db.Exec("create table public.unpublished (id int); insert into public.unpublished values (1)")
	behind := value[string](t, db, "select pg_current_wal_insert_lsn()::text")
	until(t, "the position follows", func() bool {
		return value[bool](t, db, "select confirmed_flush_lsn >= $1::pg_lsn from pg_replication_slots", behind)
	})
	until(t, "three timeouts have passed", func() bool {
		return value[bool](t, db, "select coalesce((select clock_timestamp() - backend_start > '1.2 s' from pg_stat_activity where pid = $1), true)", pid)
	})
	if now := value[*int](t, db, "select active_pid from pg_replication_slots"); now == nil || *now != pid {
		t.Error("the connection was ended")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := wal.Config{URL: "postgres://x", Handle: newSink().handle, Logger: slog.New(slog.DiscardHandler)}
	if _, err := wal.New(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*wal.Config){
		"no URL":           func(c *wal.Config) { c.URL = "" },
		"no handler":       func(c *wal.Config) { c.Handle = nil },
		"no logger":        func(c *wal.Config) { c.Logger = nil },
		"slot name":        func(c *wal.Config) { c.Slot = "Sluice" },
		"quoted slot":      func(c *wal.Config) { c.Slot = `a'; drop` },
		"long slot":        func(c *wal.Config) { c.Slot = strings.Repeat("a", 64) },
		"publication name": func(c *wal.Config) { c.Publication = `a"b` },
	} {
		c := good
		change(&c)
		if _, err := wal.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	bad := good
	bad.URL = "postgres://user:secret@[bad"
	r, err := wal.New(bad)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go r.Run(ctx) //nolint:errcheck // it ends with ctx
	until(t, "an error", func() bool { return strings.Contains(fmt.Sprint(r.State().Err), "parse database URL") })
	if strings.Contains(r.State().Err.Error(), "secret") {
		t.Errorf("the error shows the password: %v", r.State().Err)
	}
}

// A connection that is cut in the middle of a large transaction: it goes on where
// handing over has got to.
func TestCutInATransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	s := newSink()
	batches := 0
	r := background(t, db, s, func(c *wal.Config) {
		c.Handle = func(ctx context.Context, b sluice.ChangeBatch) error {
			if batches++; batches == 3 || batches == 7 {
				db.Exec("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active", "sluice_"+db.Name)
			}
			return s.handle(ctx, b)
		}
	})
	live(t, r)
	const n = 5000
	db.Exec(fmt.Sprintf("insert into public.t select g from generate_series(1, %d) g", n))
	db.Exec(fmt.Sprintf("insert into public.t values (%d)", n+1))
	got := s.wait(t, n+1)
	for i, line := range got {
		if want := fmt.Sprintf("INSERT public.t %d,null,null", i+1); line != want {
			t.Fatalf("change %d is %q, want %q", i, line, want)
		}
	}
}

// A batch that the handler refuses is not repeated, and holds nothing up.
func TestHandlerRefuses(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	s := newSink()
	refused := 0
	r := background(t, db, s, func(c *wal.Config) {
		c.Handle = func(ctx context.Context, b sluice.ChangeBatch) error {
			if b.Changes[0].Kind == sluice.ChangeInsert && refused == 0 {
				refused++
				return errors.New("refused")
			}
			return s.handle(ctx, b)
		}
	})
	live(t, r)
	db.Exec("insert into public.t values (1)")
	db.Exec("insert into public.t values (2)")
	if d := cmp.Diff([]string{"INSERT public.t 2,null,null"}, s.wait(t, 1)); d != "" {
		t.Error(d)
	}
}
