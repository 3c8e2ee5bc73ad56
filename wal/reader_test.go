package wal_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/wal"
)

// sink collects what the reader hands on.
type sink struct {
	mu    sync.Mutex
	lines []string
	last  map[sluice.LSN]int
	more  chan struct{}
	block chan struct{} // when not nil, Handle waits for it
}

func newSink() *sink { return &sink{more: make(chan struct{}, 1), last: map[sluice.LSN]int{}} }

func (s *sink) handle(ctx context.Context, b sluice.ChangeBatch) error {
	if s.block != nil {
		select {
		case <-s.block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	for i, ch := range b.Changes {
		if ch.Kind == sluice.ChangeCatalog {
			continue
		}
		var vals []string
		for _, v := range append(append([]sluice.Value(nil), ch.Old...), ch.New...) {
			vals = append(vals, map[sluice.ValueKind]string{sluice.ValueMissing: "?", sluice.ValueNull: "null"}[v.Kind]+string(v.Text))
		}
		s.lines = append(s.lines, fmt.Sprintf("%s %s.%s %s", ch.Kind, ch.Relation.Schema, ch.Relation.Name, strings.Join(vals, ",")))
		if b.First+i < s.last[b.Commit] {
			s.lines = append(s.lines, "REPEATED")
		}
	}
	s.last[b.Commit] = b.First + len(b.Changes)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return nil
}

func (s *sink) wait(t *testing.T, n int) []string {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		got := append([]string(nil), s.lines...)
		s.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("%d of %d changes came: %q", len(got), n, got)
		}
	}
}

func start(t *testing.T, db *pgtest.DB, s *sink) (r *wal.Reader, stop func()) {
	t.Helper()
	r, err := wal.New(wal.Config{
		URL: db.URL("supabase_admin"), Slot: "sluice_" + db.Name, Handle: s.handle, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	live, cancelLive := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancelLive()
	if err := r.Live(live); err != nil {
		t.Fatalf("Live: %v (%v)", err, r.State().Err)
	}
	return r, stop
}

const table = `
create table public.t (id int primary key, body text, big text);
alter publication supabase_realtime add table public.t`

// spec: pgchanges:38
func TestStreamsInCommitOrder(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	s := newSink()
	start(t, db, s)
	db.Exec("insert into public.t values (1, 'a', null), (2, 'b', null)")
	db.Exec("update public.t set body = 'c' where id = 1")
	db.Exec("update public.t set id = 3 where id = 1")
	db.Exec("delete from public.t where id = 2")
	db.Exec("begin; insert into public.t values (9, 'gone', null); rollback")
	db.Exec("truncate public.t")
	db.Exec("insert into public.t values (4, 'd', null)")
	want := []string{
		"INSERT public.t 1,a,null", "INSERT public.t 2,b,null", "UPDATE public.t 1,c,null",
		"UPDATE public.t 1,?,?,3,c,null", "DELETE public.t 2,?,?", "INSERT public.t 4,d,null",
	}
	if d := cmp.Diff(want, s.wait(t, len(want))); d != "" {
		t.Error(d)
	}
}

func TestResumesAfterRestartOfTheReader(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	s := newSink()
	_, stop := start(t, db, s)
	db.Exec("insert into public.t values (1)")
	s.wait(t, 1)
	stop()
	db.Exec("insert into public.t values (2)")
	start(t, db, s)
	db.Exec("insert into public.t values (3)")
	want := []string{"INSERT public.t 1,null,null", "INSERT public.t 2,null,null", "INSERT public.t 3,null,null"}
	if d := cmp.Diff(want, s.wait(t, 3)); d != "" {
		t.Error(d)
	}
}

func TestServerRestartLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.Private(t)
	db.ExecAs("postgres", table)
	s := newSink()
	r, _ := start(t, db, s)
	db.Exec("insert into public.t select g from generate_series(1, 1000) g")
	s.wait(t, 1000)
	db.Restart()
	db.Exec("insert into public.t values (2000)")
	got := s.wait(t, 1001)
	if len(got) != 1001 || got[1000] != "INSERT public.t 2000,null,null" {
		t.Errorf("%d changes, last %q", len(got), got[len(got)-1])
	}
	if g := r.State().Gaps; g != 0 {
		t.Errorf("%d gaps", g)
	}
}

// A server stops although the handler waits for it, with little and with more
// behind it than may wait; what it had to send comes once it is back.
func TestStoppingServerIsLetGo(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string]int{"a few rows": 10, "more than may wait": 60} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Private(t)
			db.ExecAs("postgres", table)
			s := newSink()
			s.block = make(chan struct{})
			var away atomic.Bool
			r := background(t, db, s, func(c *wal.Config) { c.Away = away.Load })
			live(t, r)
			for i := range rows { // of a megabyte each
				db.Exec("insert into public.t select $1, string_agg(md5(random()::text), '') from generate_series(1, 32768)", i)
			}
			away.Store(true)
			db.StopServer() // fails when it does not stop
			db.StartServer()
			away.Store(false)
			close(s.block)
			if got := s.wait(t, rows); len(got) != rows || !strings.HasPrefix(got[rows-1], fmt.Sprintf("INSERT public.t %d,", rows-1)) {
				t.Errorf("%d changes", len(got))
			}
			if g := r.State().Gaps; g != 0 {
				t.Errorf("%d gaps", g)
			}
		})
	}
}

// A publication that is dropped and made again must not stop the stream.
func TestDroppedPublication(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	s := newSink()
	start(t, db, s)
	db.ExecAs("postgres", "insert into public.t values (1)")
	db.ExecAs("postgres", "drop publication supabase_realtime")
	db.ExecAs("postgres", "insert into public.t values (2)")
	db.ExecAs("postgres", "create publication supabase_realtime for table public.t")
	db.ExecAs("postgres", "insert into public.t values (3)")
	got := s.wait(t, 2)
	if got[0] != "INSERT public.t 1,null,null" || got[len(got)-1] != "INSERT public.t 3,null,null" {
		t.Errorf("%q", got)
	}
}

// While the handler hangs, the server must be answered, and nothing is read
// without bound; afterwards everything comes.
func TestSlowHandler(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	s := newSink()
	s.block = make(chan struct{})
	start(t, db, s)
	for i := range 20 {
		db.Exec(fmt.Sprintf("insert into public.t select g from generate_series(%d, %d) g", i*1000, i*1000+999))
	}
	close(s.block)
	if got := s.wait(t, 20000); len(got) != 20000 {
		t.Errorf("%d changes", len(got))
	}
}

// A second reader takes the slot over from a connection that hangs.
func TestTakesOverTheSlot(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	_, stop := start(t, db, newSink())
	stop()
	// A replication connection of the same name that never ends by itself.
	cfg, err := pgx.ParseConfig(string(db.URL("supabase_admin")))
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["replication"], cfg.RuntimeParams["application_name"] = "database", "sluice changes"
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	hold := conn.PgConn().Exec(t.Context(), fmt.Sprintf(`START_REPLICATION SLOT "sluice_%s" LOGICAL 0/0 (proto_version '1', publication_names '"sluice"')`, db.Name))
	_ = hold
	var active bool
	for !active {
		if err := db.Admin().QueryRow(t.Context(), "select active from pg_replication_slots where slot_name = $1", "sluice_"+db.Name).Scan(&active); err != nil {
			t.Fatal(err)
		}
	}
	s := newSink()
	start(t, db, s)
	db.Exec("insert into public.t values (1)")
	s.wait(t, 1)
}

func TestRefusesAStrangersSlot(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("select pg_create_logical_replication_slot($1, 'test_decoding')", "sluice_"+db.Name)
	r, err := wal.New(wal.Config{
		URL: db.URL("supabase_admin"), Slot: "sluice_" + db.Name, Handle: newSink().handle, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	for !strings.Contains(fmt.Sprint(r.State().Err), "plugin") {
		if e := r.State().Err; e != nil && !strings.Contains(e.Error(), "not started") && !strings.Contains(e.Error(), "plugin") {
			t.Fatalf("error %v", e)
		}
	}
	cancel()
	<-ended
}
