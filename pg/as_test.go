package pg_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

func user(sub string) sluice.Claims {
	c := sluice.Claims{Role: "authenticated", Subject: sub}
	c.JSON, _ = json.Marshal(map[string]any{"role": c.Role, "sub": sub, "email": sub + "@example.com"})
	return c
}

const (
	alice = "00000000-0000-4000-8000-00000000000a"
	bob   = "00000000-0000-4000-8000-00000000000b"
)

// who is what a connection says about itself.
const who = `select concat_ws('|', current_user, session_user, current_setting('statement_timeout'), current_setting('search_path'))
	|| (select string_agg(s || '=' || coalesce(current_setting(s, true), ''), ' ')
	      from unnest(array['request.jwt.claims', 'request.jwt.claim', 'request.jwt.claim.sub', 'request.jwt.claim.role', 'app.left']) s)`

func ask(t *testing.T, p *pg.Pool, sql string, args ...any) string {
	t.Helper()
	var s string
	if err := p.QueryRow(t.Context(), sql, args...).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

func onePool(t *testing.T, db *pgtest.DB, role string) *pg.Pool {
	t.Helper()
	p, err := pg.Open(t.Context(), pg.Config{URL: db.URL(role), MaxConns: 1, Own: role != "authenticator"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// spec: pgchanges:137
func TestAsSetsRoleAndClaimsForOneTransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := onePool(t, db, "authenticator")
	before := ask(t, p, who)

	var got [5]string
	err := p.As(t.Context(), user(alice), pg.AsOptions{
		StatementTimeout: 1500 * time.Millisecond,
		Settings:         []pg.Setting{{Name: "app.left", Value: "x"}, {Name: "search_path", Value: "extensions"}},
	}, func(ctx context.Context, tx pg.Tx) error {
		return tx.QueryRow(ctx, `select current_user, auth.uid()::text, auth.role(), current_setting('app.left'), current_setting('statement_timeout')`).
			Scan(&got[0], &got[1], &got[2], &got[3], &got[4])
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([5]string{"authenticated", alice, "authenticated", "x", "1500ms"}, got); diff != "" {
		t.Error(diff)
	}
	if after := ask(t, p, who); after != before {
		t.Errorf("the connection changed:\n%s\n%s", before, after)
	}
}

// A function called by a user may try to leave something in the session: SET
// without LOCAL, temporary tables, locks, notifications, cursors.
func TestAsLeavesNothingInTheSession(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`
create function public.leave() returns void language plpgsql as $$
begin
  perform set_config('app.left', 'session', false);
  perform set_config('search_path', 'nowhere', false);
  perform set_config('request.jwt.claims', '{"role":"service_role"}', false);
  perform set_config('statement_timeout', '77s', false);
  perform pg_advisory_lock(42);
  create temp table if not exists left_behind as select 1 as secret;
  execute 'listen left_behind';
  execute 'declare c cursor with hold for select 1';
  execute 'set role service_role';
end $$;
create table public.t (a int primary key deferrable initially deferred);
grant all on public.t to authenticated;`)
	p := onePool(t, db, "authenticator")
	const state = `select concat_ws('/', to_regclass('pg_temp.left_behind'), (select count(*) from pg_cursors),
		(select count(*) from pg_listening_channels()), pg_try_advisory_lock(42), pg_advisory_unlock(42),
		(select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()))`
	before := ask(t, p, who) + ask(t, p, state)
	pid := ask(t, p, "select pg_backend_pid()::text")

	boom := errors.New("boom")
	for name, run := range map[string]struct {
		opt  pg.AsOptions
		then func(context.Context, pg.Tx) error
		want error
	}{
		"commit":   {},
		"rollback": {opt: pg.AsOptions{Rollback: true}},
		"error":    {then: func(context.Context, pg.Tx) error { return boom }, want: boom},
		"SQL error": {then: func(ctx context.Context, tx pg.Tx) error {
			_, err := tx.Exec(ctx, "select 1 / 0")
			return err
		}, want: sluice.ErrInvalid},
		"swallowed SQL error": {then: func(ctx context.Context, tx pg.Tx) error {
			_, _ = tx.Exec(ctx, "select 1 / 0")
			return nil
		}, want: sluice.ErrConflict},
		"commit fails": {then: func(ctx context.Context, tx pg.Tx) error {
			_, err := tx.Exec(ctx, "insert into public.t values (1), (1)")
			return err
		}, want: sluice.ErrConflict},
	} {
		err := p.As(t.Context(), user(alice), run.opt, func(ctx context.Context, tx pg.Tx) error {
			if _, err := tx.Exec(ctx, "select public.leave()"); err != nil {
				return err
			}
			if run.then == nil {
				return nil
			}
			if name == "commit fails" {
				if _, err := tx.Exec(ctx, "set role authenticated; "); err != nil {
					return err
				}
			}
			return run.then(ctx, tx)
		})
		if !errors.Is(err, run.want) || (err == nil) != (run.want == nil) {
			t.Errorf("%s: error %v, want %v", name, err, run.want)
		}
		if after := ask(t, p, who) + ask(t, p, state); after != before {
			t.Errorf("%s: the session changed:\n%s\n%s", name, before, after)
		}
	}
	if now := ask(t, p, "select pg_backend_pid()::text"); now != pid {
		t.Error("the connection was replaced, cleaning did not work")
	}
}

// What pgx has prepared on a connection is not answered by somebody else's
// statement either, whether the transaction that made it was committed or not.
func TestAsForgedStatements(t *testing.T) {
	t.Parallel()
	forging(t, func(t *testing.T, db *pgtest.DB, _ string) {
		db.Exec(forge)
		for _, raises := range []bool{false, true} {
			p := onePool(t, db, "authenticator")
			read := func() (got string) {
				t.Helper()
				err := p.As(t.Context(), user(alice), pg.AsOptions{}, func(ctx context.Context, tx pg.Tx) error {
					return tx.QueryRow(ctx, "select 'honest'::text").Scan(&got)
				})
				if err != nil {
					t.Error(err)
				}
				return got
			}
			read()
			err := p.As(t.Context(), user(bob), pg.AsOptions{}, func(ctx context.Context, tx pg.Tx) error {
				_, err := tx.Exec(ctx, "select public.forge($1)", raises)
				return err
			})
			if (err != nil) != raises {
				t.Errorf("raises %t: %v", raises, err)
			}
			if got := read(); got != "honest" {
				t.Errorf("raises %t: alice reads %q", raises, got)
			}
		}
	})
}

// The same of a trigger or a function of the project, in what the server does as
// itself. An error rolls settings back by itself, locks not.
func TestInTxLeavesNothingInTheSession(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`
create table public.log (a int);
grant all on public.log to supabase_auth_admin;
create function public.leave() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  perform set_config('app.left', 'session', false);
  perform set_config('statement_timeout', '77s', false);
  perform pg_advisory_lock(42);
  execute 'listen left_behind';
  return new;
end $$;
create trigger leave before insert on public.log for each row execute function public.leave();`)
	p := onePool(t, db, "supabase_auth_admin")
	const state = `select (select count(*) from pg_listening_channels())
		+ (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) || ' ' || pg_backend_pid()`
	before := ask(t, p, who) + ask(t, p, state)
	boom := errors.New("boom")
	for _, want := range []error{nil, boom} {
		err := p.InTx(t.Context(), func(ctx context.Context, tx pg.Tx) error {
			if _, err := tx.Exec(ctx, "insert into public.log values (1)"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "select set_config('search_path', 'nowhere', false), set_config('role', 'supabase_auth_admin', false)"); err != nil {
				return err
			}
			return want
		})
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("error %v, want %v", err, want)
		}
		if after := ask(t, p, who) + ask(t, p, state); after != before {
			t.Errorf("error %v: the session changed:\n%s\n%s", want, before, after)
		}
	}
	if n := ask(t, p, "select count(*)::text from public.log"); n != "1" {
		t.Errorf("%s rows, want the committed one", n)
	}
}

func TestAsPanicAndOpenRowsAndEndedTransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := onePool(t, db, "authenticator")
	before := ask(t, p, who)

	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic was swallowed")
			}
		}()
		_ = p.As(t.Context(), user(alice), pg.AsOptions{}, func(context.Context, pg.Tx) error { panic("boom") })
	}()
	if after := ask(t, p, who); after != before {
		t.Errorf("after a panic: %s", after)
	}

	err := p.As(t.Context(), user(alice), pg.AsOptions{}, func(ctx context.Context, tx pg.Tx) error {
		_, err := tx.Query(ctx, "select generate_series(1, 100000)")
		return err // rows left open
	})
	if err == nil {
		t.Error("open rows at the end must be an error: nothing was committed")
	}
	if after := ask(t, p, who); after != before {
		t.Errorf("after open rows: %s", after)
	}

	err = p.As(t.Context(), user(alice), pg.AsOptions{}, func(ctx context.Context, tx pg.Tx) error {
		_, err := tx.Exec(ctx, "commit")
		return err
	})
	if err == nil {
		t.Error("a transaction that was ended inside must be an error")
	}
	if after := ask(t, p, who); after != before {
		t.Errorf("after an ended transaction: %s", after)
	}
}

func TestAsRefusesRolesAndSettings(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := onePool(t, db, "authenticator")
	never := func(context.Context, pg.Tx) error { t.Error("ran"); return nil }
	for _, role := range []string{"", "none", "None", "NONE", "a\x00b", strings.Repeat("x", 64)} {
		if err := p.As(t.Context(), sluice.Claims{Role: role}, pg.AsOptions{}, never); !errors.Is(err, sluice.ErrForbidden) {
			t.Errorf("role %q: %v", role, err)
		}
		got, err := p.AsEach(t.Context(), "select 1", []pg.EachCheck{{Claims: sluice.Claims{Role: role}}}, pg.AsOptions{})
		if err != nil || !errors.Is(got[0].Err, sluice.ErrForbidden) {
			t.Errorf("each role %q: %v %v", role, got, err)
		}
	}
	// Roles that the login may not take, or that do not exist.
	for _, role := range []string{"supabase_admin", "postgres", "pg_read_all_data", "nobody", "Anon", `anon"; set role postgres --`} {
		if err := p.As(t.Context(), sluice.Claims{Role: role}, pg.AsOptions{}, never); err == nil {
			t.Errorf("role %q was taken", role)
		}
	}
	for _, name := range []string{"role", "ROLE", "session_authorization", "request.jwt.claims", "Request.JWT.claim.sub", "request.jwt.claim"} {
		err := p.As(t.Context(), user(alice), pg.AsOptions{Settings: []pg.Setting{{Name: name, Value: "anon"}}}, never)
		if !errors.Is(err, sluice.ErrInvalid) {
			t.Errorf("setting %q: %v", name, err)
		}
	}
	if got := ask(t, p, "select current_user || current_setting('role')"); got != "authenticatornone" {
		t.Errorf("afterwards: %s", got)
	}
}

func TestAsManySettings(t *testing.T) {
	t.Parallel()
	p := onePool(t, pgtest.New(t), "authenticator")
	var set []pg.Setting
	for i := range 40 {
		set = append(set, pg.Setting{Name: fmt.Sprintf("app.s%d", i), Value: fmt.Sprint(i)})
	}
	err := p.As(t.Context(), user(alice), pg.AsOptions{Settings: set, ReadOnly: true}, func(ctx context.Context, tx pg.Tx) error {
		var a, ro string
		if err := tx.QueryRow(ctx, "select current_setting('app.s0') || current_setting('app.s39'), current_setting('transaction_read_only')").Scan(&a, &ro); err != nil {
			return err
		}
		if a != "039" || ro != "on" {
			t.Errorf("got %s %s", a, ro)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAsCancelled(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := onePool(t, db, "authenticator")
	before := ask(t, p, who)
	ctx, cancel := context.WithCancel(t.Context())
	err := p.As(ctx, user(alice), pg.AsOptions{}, func(ctx context.Context, tx pg.Tx) error {
		time.AfterFunc(20*time.Millisecond, cancel)
		_, err := tx.Exec(ctx, "select pg_sleep(30)")
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	// The pool has one connection: this one is new or clean.
	if after := ask(t, p, who); after != before {
		t.Errorf("after cancellation: %s", after)
	}

	err = p.As(t.Context(), user(alice), pg.AsOptions{StatementTimeout: 20 * time.Millisecond}, func(ctx context.Context, tx pg.Tx) error {
		_, err := tx.Exec(ctx, "select pg_sleep(30)")
		return err
	})
	if !errors.Is(err, sluice.ErrTimeout) || pg.SQLState(err) != "57014" {
		t.Errorf("statement timeout: %v", err)
	}
	if after := ask(t, p, who); after != before {
		t.Errorf("after a timeout: %s", after)
	}

	start := time.Now()
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := p.AsEach(ctx, "select pg_sleep(30)", []pg.EachCheck{{Claims: user(alice)}, {Claims: user(bob)}}, pg.AsOptions{}); err == nil {
		t.Error("AsEach came back without an error")
	}
	if after := ask(t, p, who); after != before {
		t.Errorf("after AsEach was cancelled: %s", after)
	}
	// The server does not run the other checks to their end. The pool has one
	// connection, so this question waited for it.
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("the cancelled checks held their connection for %v", took)
	}
}

func TestAsEachIsolatesIdentities(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`
create table public.notes (id int primary key, owner uuid, body text);
alter table public.notes enable row level security;
create policy own on public.notes for select to authenticated using (
  case when auth.jwt() ->> 'boom' = 'yes' then 1 / (id - id) = 1 else auth.uid() = owner end);
create function public.left_by() returns text language plpgsql as $$
declare was text := coalesce(nullif(current_setting('app.left', true), ''), 'nobody');
begin
  perform set_config('app.left', auth.uid()::text, false);
  perform pg_advisory_lock(7);
  return was;
end $$;
create table public.log (line text);
create function public.write_log() returns int language sql security definer as $$ insert into public.log values ('x') returning 1 $$;`)
	db.Exec(`insert into public.notes values (1, $1, 'a'), (2, $2, 'b'), (3, $1, null)`, alice, bob)
	p := onePool(t, db, "authenticator")
	before := ask(t, p, who)

	boom := user(alice)
	boom.JSON = json.RawMessage(`{"role":"authenticated","boom":"yes"}`)
	broken := user(alice)
	broken.Subject, broken.JSON = "", json.RawMessage(`{"sub":"not a uuid"}`)
	checks := []pg.EachCheck{
		{Claims: user(alice)},
		{Claims: boom},
		{Claims: user(bob)},
		{Claims: sluice.Claims{Role: "none"}},
		{Claims: sluice.Claims{Role: "nobody"}},
		{Claims: broken},
		{Claims: sluice.Claims{Role: "anon"}},
		{Claims: sluice.Claims{Role: "service_role"}},
		{Claims: user(alice)},
	}
	for i := range checks {
		checks[i].Args = [][]byte{[]byte("0")}
	}
	got, err := p.AsEach(t.Context(), "select id, body from public.notes where id > $1::int order by id", checks, pg.AsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range got {
		switch {
		case errors.Is(r.Err, sluice.ErrForbidden):
			lines = append(lines, "forbidden")
		case r.Err != nil:
			lines = append(lines, "error "+pg.SQLState(r.Err))
		default:
			var b strings.Builder
			for _, row := range r.Rows {
				fmt.Fprintf(&b, "%s:%s;", row[0], row[1])
			}
			lines = append(lines, b.String())
		}
	}
	want := []string{"1:a;3:;", "error 22012", "2:b;", "forbidden", "error 22023", "error 22P02", "", "1:a;2:b;3:;", "1:a;3:;"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if got[0].Rows[1][1] != nil {
		t.Error("NULL is nil")
	}

	// Settings, locks and writes of one identity are not there for the next.
	got, err = p.AsEach(t.Context(), "select public.left_by(), public.write_log()", []pg.EachCheck{{Claims: user(alice)}, {Claims: user(bob)}}, pg.AsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if r.Err != nil || string(r.Rows[0][0]) != "nobody" {
			t.Errorf("identity %d: %s %v", i, r.Rows, r.Err)
		}
	}
	if n := ask(t, db.Pool("supabase_admin"), "select count(*)::text from public.log"); n != "0" {
		t.Errorf("%s writes stayed", n)
	}
	if locks := ask(t, p, "select count(*)::text from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"); locks != "0" {
		t.Errorf("%s advisory locks stayed", locks)
	}
	if after := ask(t, p, who); after != before {
		t.Errorf("the connection changed: %s", after)
	}

	got, err = p.AsEach(t.Context(), "insert into public.notes values (9)", []pg.EachCheck{{Claims: user(alice)}}, pg.AsOptions{ReadOnly: true})
	if err != nil || pg.SQLState(got[0].Err) != "25006" {
		t.Errorf("read only: %v %v", got, err)
	}
}

// What is given is there for one check alone, put there past row level security
// and judged under it; so are the settings of a check.
func TestAsEachGiven(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`
create table public.given (line text);
alter table public.given enable row level security;
grant select, insert on public.given to authenticated, service_role;
create policy topic on public.given for select to authenticated using (line = current_setting('app.topic', true) and auth.role() = 'authenticated');
create table public.days (at date) partition by range (at);
grant insert on public.days to service_role;`)
	p := onePool(t, db, "authenticator")
	before := ask(t, p, who)
	check := func(c sluice.Claims, topic, line string) pg.EachCheck {
		return pg.EachCheck{
			Claims: c, Settings: []pg.Setting{{Name: "app.topic", Value: topic}},
			Given: pg.Statement{SQL: "insert into public.given values ($1), ('other')", Args: [][]byte{[]byte(line)}},
		}
	}
	noPartition := pg.EachCheck{Claims: user(alice), Given: pg.Statement{SQL: "insert into public.days values ('2000-01-01')"}}
	stolen := check(user(alice), "a", "a")
	stolen.Settings = []pg.Setting{{Name: "Role", Value: "postgres"}}
	got, err := p.AsEach(t.Context(), "select line from public.given", []pg.EachCheck{
		check(user(alice), "a", "a"), check(user(bob), "b", "a"), check(user(bob), "other", "a"), noPartition, stolen,
		{Claims: user(alice)},
		check(sluice.Claims{Role: "nobody"}, "a", "a"),
	}, pg.AsOptions{Settings: []pg.Setting{{Name: "search_path", Value: "extensions"}}})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range got {
		switch {
		case pg.IsNoPartition(r.Err):
			lines = append(lines, "no partition")
		case r.Err != nil:
			lines = append(lines, "error "+pg.SQLState(r.Err))
		default:
			lines = append(lines, fmt.Sprintf("%s", r.Rows))
		}
	}
	want := []string{"[[a]]", "[]", "[[other]]", "no partition", "error ", "[]", "error 22023"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if n := ask(t, db.Pool("supabase_admin"), "select count(*)::text from public.given"); n != "0" {
		t.Errorf("%s rows stayed", n)
	}
	if after := ask(t, p, who); after != before {
		t.Errorf("the connection changed: %s", after)
	}
	db.Exec("alter table public.given add constraint short check (line = '')")
	got, err = p.AsEach(t.Context(), "select", []pg.EachCheck{check(user(alice), "a", "a")}, pg.AsOptions{})
	if err != nil || pg.SQLState(got[0].Err) != "23514" || pg.IsNoPartition(got[0].Err) {
		t.Errorf("a violated check: %v %v", got, err)
	}
}

// An identity's timeout is an answer for that identity alone, and each has the
// whole time.
func TestAsEachTimeout(t *testing.T) {
	t.Parallel()
	p := onePool(t, pgtest.New(t), "authenticator")
	checks := make([]pg.EachCheck, 5)
	for i := range checks {
		checks[i] = pg.EachCheck{Claims: user(alice), Args: [][]byte{[]byte("0.04")}}
	}
	checks[2].Args = [][]byte{[]byte("30")}
	got, err := p.AsEach(t.Context(), "select pg_sleep($1::float8)", checks, pg.AsOptions{StatementTimeout: 150 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if want := i == 2; errors.Is(r.Err, sluice.ErrTimeout) != want || (r.Err == nil) == want {
			t.Errorf("identity %d: %v", i, r.Err)
		}
	}
}

func TestAsEachMany(t *testing.T) {
	t.Parallel()
	p := onePool(t, pgtest.New(t), "authenticator")
	checks := make([]pg.EachCheck, 3000)
	for i := range checks {
		checks[i] = pg.EachCheck{Claims: user(fmt.Sprintf("00000000-0000-4000-8000-%012d", i)), Args: [][]byte{[]byte(fmt.Sprint(i)), nil}}
	}
	got, err := p.AsEach(t.Context(), "select auth.uid(), $1::int / ($1::int % 3), $2::text, repeat('x', 400)", checks, pg.AsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if i%3 == 0 {
			if pg.SQLState(r.Err) != "22012" {
				t.Fatalf("identity %d: %v", i, r.Err)
			}
			continue
		}
		if r.Err != nil || string(r.Rows[0][0]) != checks[i].Claims.Subject || string(r.Rows[0][1]) != fmt.Sprint(i/(i%3)) || r.Rows[0][2] != nil {
			t.Fatalf("identity %d: %s %v", i, r.Rows, r.Err)
		}
	}
	if got, err := p.AsEach(t.Context(), "select 1", nil, pg.AsOptions{}); got != nil || err != nil {
		t.Errorf("no checks: %v %v", got, err)
	}
}

// Two users at once on one pool never see each other's claims.
func TestAsConcurrently(t *testing.T) {
	t.Parallel()
	p := pgtest.New(t).Pool("authenticator")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			sub := fmt.Sprintf("00000000-0000-4000-8000-%012d", g)
			for range 50 {
				var got string
				err := p.As(t.Context(), user(sub), pg.AsOptions{}, func(ctx context.Context, tx pg.Tx) error {
					return tx.QueryRow(ctx, "select auth.uid()::text").Scan(&got)
				})
				if err != nil || got != sub {
					t.Errorf("user %s: %s %v", sub, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Users cannot list the prepared statements of the session that they share, and
// the project's owner can list his own.
func TestPreparedStatementsAreNotListed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := onePool(t, db, "authenticator")
	for _, sql := range []string{"select count(*)::text from pg_prepared_statements", "select count(*)::text from pg_prepared_statement()"} {
		for _, role := range []string{"anon", "authenticated", "service_role"} {
			if got, err := first(t, p, sluice.Claims{Role: role}, pg.AsOptions{}, sql); !errors.Is(err, sluice.ErrForbidden) {
				t.Errorf("%s: %s: %q, %v", role, sql, got, err)
			}
		}
		db.ExecAs("postgres", sql)
	}
}
