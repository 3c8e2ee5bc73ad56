package schema_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/schema"
)

// signal is a log that wakes a waiting test with every line.
type signal struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newSignal() *signal { return &signal{more: make(chan struct{}, 1000)} }

func (s *signal) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.lines = append(s.lines, string(p))
	s.mu.Unlock()
	s.more <- struct{}{}
	return len(p), nil
}

// following is a cache that follows its database until the test ends.
type following struct {
	*schema.Cache
	*pgtest.DB
	t   *testing.T
	log *signal
}

func follow(t *testing.T, db *pgtest.DB) *following {
	t.Helper()
	log := newSignal()
	c, err := schema.New(schema.Config{Admin: db.Pool("supabase_admin"), Schemas: []string{"public"}, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	f := &following{c, db, t, log}
	f.until(func(s *schema.Snapshot) bool { return true })
	return f
}

// until waits for a snapshot that fits, load by load.
func (f *following) until(fits func(*schema.Snapshot) bool) *schema.Snapshot {
	f.t.Helper()
	for {
		if s := f.Snapshot(); s != nil && fits(s) {
			return s
		}
		select {
		case <-f.log.more:
		case <-f.t.Context().Done():
			f.t.Fatal("the snapshot did not come")
		}
	}
}

// spec: rest:CA-01
func TestReloadAfterDDL(t *testing.T) {
	t.Parallel()
	f := follow(t, pgtest.New(t))
	f.ExecAs("postgres", `create table public.a (id int primary key); create table public.b (id int primary key, a_id int)`)
	s := f.until(func(s *schema.Snapshot) bool { return s.Relation("public", "b") != nil })
	if len(s.Relationships(s.Relation("public", "b"))) != 0 {
		t.Error("a relationship without a key")
	}
	f.ExecAs("postgres", `alter table public.b add foreign key (a_id) references public.a`)
	f.until(func(s *schema.Snapshot) bool { return len(s.Relationships(s.Relation("public", "b"))) == 1 })
	f.ExecAs("postgres", `alter table public.b add column fresh text`)
	f.until(func(s *schema.Snapshot) bool { return s.Relation("public", "b").Column("fresh") != nil })
	f.ExecAs("postgres", `create function public.f(x int) returns int language sql as 'select 1'`)
	f.until(func(s *schema.Snapshot) bool { return len(s.Functions("public", "f")) == 1 })
	f.ExecAs("postgres", `drop table public.b`)
	f.until(func(s *schema.Snapshot) bool { return s.Relation("public", "b") == nil })
}

// spec: rest:CA-02 rest:CA-08
func TestNotifications(t *testing.T) {
	t.Parallel()
	f := follow(t, pgtest.Private(t))
	version := func() uint64 { return f.Snapshot().Version }
	for _, payload := range []string{"", "reload schema", "reload config"} {
		before := version()
		f.Exec("select pg_notify('pgrst', $1)", payload)
		f.until(func(s *schema.Snapshot) bool { return s.Version > before })
	}
	before := version()
	f.Exec("select pg_notify('pgrst', 'whatever')")
	f.Exec("alter role authenticator set pgrst.db_tx_end = 'rollback'")
	f.Exec("alter role authenticator in database postgres set pgrst.db_tx_end = 'commit-allow-override'")
	f.Exec("alter role anon set statement_timeout = '11s'")
	f.Exec("select pg_notify('pgrst', 'reload config')")
	s := f.until(func(s *schema.Snapshot) bool { return s.Version > before })
	if s.Version != before+1 || s.Settings["db_tx_end"] != "commit-allow-override" || !slices.Contains(s.Roles["anon"], schema.Setting{Name: "statement_timeout", Value: "11s"}) {
		t.Errorf("version %d after %d, settings %v, roles %v", s.Version, before, s.Settings, s.Roles)
	}
}

// A burst is loaded in few steps, and the last change is never lost.
//
// spec: rest:CA-03
func TestBurst(t *testing.T) {
	t.Parallel()
	f := follow(t, pgtest.New(t))
	before := f.Snapshot().Version
	const n = 30
	for i := range n {
		f.Exec(fmt.Sprintf("create table public.t%d (id int)", i))
	}
	s := f.until(func(s *schema.Snapshot) bool { return s.Relation("public", fmt.Sprint("t", n-1)) != nil })
	if loads := s.Version - before; loads > n {
		t.Errorf("%d loads of %d changes", loads, n)
	}
}

// spec: rest:CA-04
func TestFailedReloadKeepsTheSnapshot(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", "create table public.kept (id int)")
	pool, err := pg.Open(t.Context(), pg.Config{URL: db.URL("supabase_admin"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	c, err := schema.New(schema.Config{Admin: pool, Schemas: []string{"public"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Reload(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	was := c.Snapshot()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Reload(gone, was.Version); err == nil {
		t.Error("a reload without a database")
	}
	if c.Snapshot() != was || was.Relation("public", "kept") == nil {
		t.Error("the snapshot was lost")
	}
	if err := c.Reload(t.Context(), was.Version-1); err != nil || c.Snapshot() != was {
		t.Errorf("a version that is there already was loaded again, %v", err)
	}
}

// spec: rest:CA-05
func TestReconnect(t *testing.T) {
	t.Parallel()
	f := follow(t, pgtest.Private(t))
	f.Restart()
	f.Exec("create table public.meanwhile (id int)") // before or after the cache is back
	f.until(func(s *schema.Snapshot) bool { return s.Relation("public", "meanwhile") != nil })
	f.Exec("create table public.later (id int)")
	f.until(func(s *schema.Snapshot) bool { return s.Relation("public", "later") != nil })
}

// BenchmarkReload loads a schema of 600 relations.
func BenchmarkReload(b *testing.B) {
	db := pgtest.New(b)
	db.Exec(`do $$ begin
  for i in 1..300 loop
    execute format('create table public.big%s (id int primary key, up int references public.big%s, a text default ''x'', b jsonb, c timestamptz)', i, greatest(i - 1, 1));
    execute format('create view public.view%s as select * from public.big%s', i, i);
  end loop;
end $$`)
	c, err := schema.New(schema.Config{Admin: db.Pool("supabase_admin"), Schemas: []string{"public"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		seen := uint64(0)
		if s := c.Snapshot(); s != nil {
			seen = s.Version
		}
		if err := c.Reload(b.Context(), seen); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", `
create domain public.inner_d as int default 7;
create domain public.outer_d as public.inner_d;
create table public.t (a int generated by default as identity primary key, b public.outer_d, c text default 'x''y', d int generated always as (1) stored, e char(3), f int[]);
create table public.p (id int, primary key (id)) partition by range (id);
create table public.p1 partition of public.p for values from (0) to (9);
create view public.v as select a as va, c || 'x' as vc, c from public.t;
create table public.two (x int, y int, z int, primary key (x, y) include (z));
create function public.f(in a int, out b int, inout c text, variadic d int[] default '{}') language sql as $$ select 1, 'x' $$;
create function public.rec() returns record language sql as $$ select 1 $$;
create function public.rows_1() returns setof public.t rows 1 language sql as $$ select * from public.t $$;
create function public.unnamed(int, int) returns int language sql as $$ select 1 $$;
create function public.trig() returns trigger language plpgsql as $$ begin return new; end $$;
create procedure public.proc() language sql as $$ select 1 $$;
create aggregate public.agg(int) (sfunc = int4pl, stype = int);`)
	c, err := schema.New(schema.Config{Admin: db.Pool("supabase_admin"), Schemas: []string{"public"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Reload(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	s := c.Snapshot()
	var lines []string
	for i := range s.Relation("public", "t").Columns {
		col := &s.Relation("public", "t").Columns[i]
		def := "none"
		if col.Default != nil {
			def = *col.Default
		}
		lines = append(lines, fmt.Sprintf("%s %s base %d %s default %s%s%s", col.Name, col.Type, col.Base, col.Category, def, col.Identity, col.Generated))
	}
	want := []string{
		"a integer base 23 N default nextval('public.t_a_seq'::regclass)d", "b public.outer_d base 23 N default 7", "c text base 25 S default 'x''y'::text",
		"d integer base 23 N default 1s", "e character(3) base 1042 S default none", "f integer[] base 1007 A default none",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	v := s.Relation("public", "v")
	if !slices.Equal(v.PrimaryKey, []string{"va"}) || *v.Column("c").Default != "'x''y'::text" || v.Column("vc").Default != nil || !v.Insertable {
		t.Errorf("view %+v", v)
	}
	if pk := s.Relation("public", "two").PrimaryKey; !slices.Equal(pk, []string{"x", "y"}) {
		t.Errorf("primary key %v", pk)
	}
	if s.Relation("public", "p1") != nil || s.Relation("public", "p") == nil || s.Relation("pg_catalog", "pg_class") != nil {
		t.Error("partitions or unexposed relations are served")
	}
	f := s.Functions("public", "f")[0]
	var args []string
	for _, a := range f.Args {
		args = append(args, fmt.Sprintf("%s %s %v", a.Name, a.Type, a.Optional))
	}
	if got := strings.Join(args, ", "); got != "a integer false, c text false, d integer[] true" || !f.ReturnsRow || f.Anonymous || !f.Variadic {
		t.Errorf("%s %+v", got, f)
	}
	if rec := s.Functions("public", "rec")[0]; !rec.Anonymous || rec.ReturnsSet {
		t.Errorf("%+v", rec)
	}
	if r := s.Functions("public", "rows_1")[0]; r.Returns != s.Relation("public", "t") {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"unnamed", "trig", "proc", "agg"} {
		if s.Functions("public", name) != nil {
			t.Errorf("%s can be called", name)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want float64
	}{{"projects", "projectx", 0.875}, {"projects", "PROJECTS", 1}, {"", "", 0}, {"a", "b", 0}, {"äöüa", "äöxa", 0.75}} {
		if got := schema.Similarity(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: %v, want %v", c.a, c.b, got, c.want)
		}
	}
	if got := schema.Similarity(strings.Repeat("x", 257), "x"); got != 0 {
		t.Errorf("a very long name: %v", got)
	}
}
