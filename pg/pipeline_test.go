package pg_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

// first runs a statement and returns its first value.
func first(t *testing.T, p *pg.Pool, id sluice.Claims, opt pg.AsOptions, sql string, args ...string) (string, error) {
	t.Helper()
	st := pg.Statement{SQL: sql}
	for _, a := range args {
		st.Args = append(st.Args, []byte(a))
	}
	res, err := p.Pipeline(t.Context(), id, opt, []pg.Statement{st}, nil)
	if err != nil {
		return "", err
	}
	if len(res) != 1 {
		t.Fatalf("%d results", len(res))
	}
	if len(res[0].Rows) == 0 {
		return "", nil
	}
	return string(res[0].Rows[0][0]), nil
}

func TestPipelineRunsAsTheUserAndLeavesNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`
create function public.leave() returns text language plpgsql as $$
begin
  perform set_config('app.left', 'session', false);
  perform set_config('request.jwt.claims', '{"role":"service_role"}', false);
  perform set_config('statement_timeout', '77s', false);
  perform pg_advisory_lock(42);
  execute 'set role service_role';
  return 'left';
end $$;`)
	p := onePool(t, db, "authenticator")
	const locks = "select count(*)::text from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
	before := ask(t, p, who)
	pid := ask(t, p, "select pg_backend_pid()::text")
	for _, opt := range []pg.AsOptions{{}, {ReadOnly: true}, {ReadOnly: true, Rollback: true}, {Rollback: true}} {
		for range 4 { // the later ones are prepared
			if got, err := first(t, p, user(alice), opt, "select current_user || auth.uid()::text || public.leave()"); err != nil || got != "authenticated"+alice+"left" {
				t.Errorf("%+v: %s %v", opt, got, err)
			}
			if after := ask(t, p, who); after != before {
				t.Errorf("%+v: the connection changed:\n%s\n%s", opt, before, after)
			}
			if n := ask(t, p, locks); n != "0" {
				t.Errorf("%+v: %s advisory locks stayed", opt, n)
			}
		}
	}
	if _, err := first(t, p, user(alice), pg.AsOptions{}, "select 1 / 0"); pg.SQLState(err) != "22012" {
		t.Errorf("error %v", err)
	}
	if after := ask(t, p, who); after != before {
		t.Errorf("after an error: %s", after)
	}
	if now := ask(t, p, "select pg_backend_pid()::text"); now != pid {
		t.Error("the connection was not kept")
	}
}

func TestPipelineCheckDecides(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`
create table public.t (a int primary key, up int references public.t deferrable initially deferred);
grant all on public.t to authenticated;`)
	p := onePool(t, db, "authenticator")
	insert := []pg.Statement{{SQL: "insert into public.t values ($1, $2) returning a", Args: [][]byte{[]byte("1"), nil}}}
	no := errors.New("no")
	if _, err := p.Pipeline(t.Context(), user(alice), pg.AsOptions{}, insert, func([]pg.Result) error { return no }); !errors.Is(err, no) {
		t.Errorf("veto: %v", err)
	}
	if n := ask(t, db.Pool("supabase_admin"), "select count(*)::text from public.t"); n != "0" {
		t.Errorf("%s rows in spite of the veto", n)
	}
	res, err := p.Pipeline(t.Context(), user(alice), pg.AsOptions{}, insert, func(res []pg.Result) error {
		if len(res) != 1 || string(res[0].Rows[0][0]) != "1" {
			t.Errorf("results %v", res)
		}
		return nil
	})
	if err != nil || len(res) != 1 {
		t.Errorf("%v %v", res, err)
	}
	bad := []pg.Statement{{SQL: "insert into public.t values ($1, $2) returning a", Args: [][]byte{[]byte("2"), []byte("99")}}}
	for _, check := range []func([]pg.Result) error{nil, func([]pg.Result) error { return nil }} {
		if _, err := p.Pipeline(t.Context(), user(alice), pg.AsOptions{}, bad, check); pg.SQLState(err) != "23503" {
			t.Errorf("a deferred constraint: %v", err)
		}
	}
	if n := ask(t, db.Pool("supabase_admin"), "select count(*)::text from public.t"); n != "1" {
		t.Errorf("%s rows", n)
	}
}

// What was prepared may be gone, or of other types: the transaction is run once
// more, and nothing of the first try stays.
func TestPipelinePreparesAgain(t *testing.T) {
	t.Parallel()
	db := listed(t)
	db.Exec(`
create table public.t (a int, b text);
insert into public.t values (1, 'x');
create table public.log (n int);
grant all on public.t, public.log to authenticated;
create function public.forget() returns text language plpgsql as $$ begin execute 'deallocate all'; return 'forgotten'; end $$;`)
	p := onePool(t, db, "authenticator")
	const q = "select b from public.t where a = $1"
	for i := range 3 {
		if got, err := first(t, p, user(alice), pg.AsOptions{ReadOnly: true}, q, "1"); err != nil || got != "x" {
			t.Fatalf("use %d: %s %v", i, got, err)
		}
	}
	if n := ask(t, p, "select count(*)::text from pg_prepared_statements where statement = '"+q+"'"); n != "1" {
		t.Errorf("prepared %s times", n)
	}
	db.Exec("alter table public.t alter a type text using 'a' || a, alter b type int using 7")
	if got, err := first(t, p, user(alice), pg.AsOptions{ReadOnly: true}, q, "a1"); err != nil || got != "7" {
		t.Errorf("after the types changed: %s %v", got, err)
	}
	for i := range 3 {
		if got, err := first(t, p, user(alice), pg.AsOptions{}, "select public.forget()"); err != nil || got != "forgotten" {
			t.Errorf("forget %d: %s %v", i, got, err)
		}
		if _, err := first(t, p, user(alice), pg.AsOptions{}, "insert into public.log values ($1) returning n", fmt.Sprint(i)); err != nil {
			t.Errorf("insert %d: %v", i, err)
		}
	}
	if n := ask(t, db.Pool("supabase_admin"), "select string_agg(n::text, ',' order by n) from public.log"); n != "0,1,2" {
		t.Errorf("rows %s", n)
	}
	// A mistake of the caller's stays one.
	for range 3 {
		if _, err := first(t, p, user(alice), pg.AsOptions{}, "select $1::int", "x"); pg.SQLState(err) != "22P02" {
			t.Errorf("error %v", err)
		}
	}
}

// Roles do not share a prepared statement, and what is not used makes room.
func TestPipelineBoundsPreparedStatements(t *testing.T) {
	t.Parallel()
	db := listed(t)
	p := onePool(t, db, "authenticator")
	const q = "select current_user || $1::text"
	for range 3 {
		for _, role := range []string{"anon", "authenticated"} {
			if got, err := first(t, p, sluice.Claims{Role: role}, pg.AsOptions{ReadOnly: true}, q, "!"); err != nil || got != role+"!" {
				t.Fatalf("%s: %s %v", role, got, err)
			}
		}
	}
	if n := ask(t, p, "select count(*)::text from pg_prepared_statements where statement = '"+q+"'"); n != "2" {
		t.Errorf("prepared %s times for two roles", n)
	}
	for i := range 700 {
		for range 2 {
			if _, err := first(t, p, user(alice), pg.AsOptions{ReadOnly: true, Rollback: true}, fmt.Sprintf("select %d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var n int
	if err := p.QueryRow(t.Context(), "select count(*) from pg_prepared_statements where name ~ '^s_[A-Z2-7]{26}$'").Scan(&n); err != nil || n > 512 || n < 400 {
		t.Errorf("%d prepared statements, %v", n, err)
	}
}

// Long statements are few on a connection, and very long ones are never prepared:
// each takes many times its text in the server.
func TestPreparedStatementsAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	p := onePool(t, listed(t), "authenticator")
	texts := func() (bytes, longest int) {
		t.Helper()
		const sql = "select coalesce(sum(length(statement)), 0), coalesce(max(length(statement)), 0) from pg_prepared_statements where name ~ '^s_[A-Z2-7]{26}$'"
		if err := p.QueryRow(t.Context(), sql).Scan(&bytes, &longest); err != nil {
			t.Fatal(err)
		}
		return bytes, longest
	}
	run := func(i, size int) {
		t.Helper()
		want := fmt.Sprintf("%d%s", i, strings.Repeat("x", size))
		sql := "select '" + want + "'"
		for range 3 {
			if got, err := first(t, p, user(alice), pg.AsOptions{ReadOnly: true, Rollback: true}, sql); err != nil || got != want {
				t.Fatalf("statement %d of %d bytes: %.20q %v", i, size, got, err)
			}
		}
		checks := []pg.EachCheck{{Claims: user(alice)}, {Claims: user(bob)}}
		if got := each(t, p, sql, checks, pg.AsOptions{}); got[0] != want || got[1] != want {
			t.Fatalf("asked of each: %.20q", got)
		}
	}
	run(0, 15<<10)
	if _, longest := texts(); longest < 15<<10 {
		t.Errorf("the longest that was prepared has %d bytes", longest)
	}
	run(0, 17<<10)
	if _, longest := texts(); longest > 16<<10 {
		t.Errorf("one of %d bytes was prepared", longest)
	}
	for i := range 60 {
		run(i, 8<<10)
	}
	if bytes, _ := texts(); bytes < 128<<10 || bytes > 256<<10 {
		t.Errorf("%d bytes of statements are prepared", bytes)
	}
	// Of the many of one flush, the first make room for the last.
	var checks []pg.EachCheck
	for i := range 100 {
		given := pg.Statement{SQL: fmt.Sprintf("select %d /* %s */", i%50, strings.Repeat("x", 8<<10))}
		checks = append(checks, pg.EachCheck{Claims: user(alice), Given: given})
	}
	for range 3 {
		for i, got := range each(t, p, "select 'asked'", checks, pg.AsOptions{}) {
			if got != "asked" {
				t.Fatalf("check %d: %q", i, got)
			}
		}
	}
	run(0, 10) // and what was dropped is deallocated
	if bytes, _ := texts(); bytes > 256<<10 {
		t.Errorf("%d bytes of statements are prepared behind a flush of many", bytes)
	}
}

func TestPipelineWaitsForAConnectionOnlySoLong(t *testing.T) {
	t.Parallel()
	p := onePool(t, pgtest.New(t), "authenticator")
	c, err := p.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if _, err := first(t, p, user(alice), pg.AsOptions{AcquireTimeout: time.Millisecond}, "select 1"); !errors.Is(err, sluice.ErrTimeout) {
		t.Errorf("error %v", err)
	}
}

func TestPipelineCancelled(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := onePool(t, db, "authenticator")
	before := ask(t, p, who)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := p.Pipeline(ctx, user(alice), pg.AsOptions{}, []pg.Statement{{SQL: "select pg_sleep(60)"}}, nil)
		done <- err
	}()
	admin := db.Pool("supabase_admin")
	for ask(t, admin, "select count(*)::text from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and pid <> pg_backend_pid()") == "0" {
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if after := ask(t, p, who); after != before {
		t.Errorf("after cancellation: %s", after)
	}
	for ask(t, admin, "select count(*)::text from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and pid <> pg_backend_pid()") != "0" {
	}
}

func TestPipelineConcurrently(t *testing.T) {
	t.Parallel()
	p := pgtest.New(t).Pool("authenticator")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			sub := fmt.Sprintf("00000000-0000-4000-8000-%012d", g)
			for range 50 {
				got, err := first(t, p, user(sub), pg.AsOptions{ReadOnly: true, Rollback: true}, "select auth.uid()::text || $1", strings.Repeat("x", g))
				if err != nil || got != sub+strings.Repeat("x", g) {
					t.Errorf("user %s: %s %v", sub, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// listable lets roles see the session's prepared statements, as on a server where
// the right to could not be taken.
func listable(db *pgtest.DB, roles string) {
	db.Exec("grant execute on function pg_catalog.pg_prepared_statement() to " + roles + "; grant select on pg_catalog.pg_prepared_statements to " + roles)
}

// listed is a database in which everybody may.
func listed(t *testing.T) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t)
	listable(db, "public")
	return db
}

// forging runs test in databases that differ in who may see prepared statements:
// everybody, users and not their login, nobody.
func forging(t *testing.T, test func(t *testing.T, db *pgtest.DB, listers string)) {
	for _, roles := range []string{"public", "authenticated", ""} {
		t.Run("listable to "+roles, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			if roles != "" {
				listable(db, roles)
			}
			test(t, db, roles)
		})
	}
}

// forge is a function that puts a statement of its own in the place of every one
// that was prepared, and then may raise an error: the transaction is rolled back,
// what it prepared is not.
const forge = `
create function public.forge(raises boolean default false) returns text language plpgsql as $$
declare p record;
begin
  begin
    for p in select name, array_to_string(parameter_types, ', ') as types from pg_prepared_statements where not from_sql loop
      execute 'deallocate ' || quote_ident(p.name);
      execute 'prepare ' || quote_ident(p.name) || case when p.types <> '' then '(' || p.types || ')' else '' end || ' as select ''forged''::text';
    end loop;
  exception when insufficient_privilege then null;
  end;
  if raises then raise exception 'and now an error'; end if;
  return 'done';
end $$;`

// Nobody puts a statement of his own in the place of one that was prepared for
// the next user.
func TestPipelineForgedStatements(t *testing.T) {
	t.Parallel()
	forging(t, func(t *testing.T, db *pgtest.DB, _ string) {
		db.Exec(forge)
		p := onePool(t, db, "authenticator")
		const honest = "select 'honest'::text"
		for range 4 { // prepared in the end
			if got, err := first(t, p, user(alice), pg.AsOptions{}, honest); err != nil || got != "honest" {
				t.Fatalf("%q %v", got, err)
			}
		}
		for range 3 {
			if got, err := first(t, p, user(bob), pg.AsOptions{}, "select public.forge()"); err == nil && got != "done" {
				t.Errorf("%q", got)
			}
			for range 3 {
				if got, err := first(t, p, user(alice), pg.AsOptions{}, honest); err != nil || got != "honest" {
					t.Errorf("%q %v", got, err)
				}
			}
		}
	})
}

// Nor does he when his transaction fails behind it, or is refused.
func TestPipelineForgedStatementsBehindAnError(t *testing.T) {
	t.Parallel()
	forging(t, func(t *testing.T, db *pgtest.DB, _ string) {
		db.Exec(forge)
		no := func([]pg.Result) error { return errors.New("no") }
		for name, forged := range map[string]struct {
			sql   string
			check func([]pg.Result) error
		}{
			"an error": {sql: "select public.forge(true)"},
			"a check":  {sql: "select public.forge()", check: no},
		} {
			p := onePool(t, db, "authenticator")
			const honest = "select 'honest'::text"
			for range 3 {
				if got, err := first(t, p, user(alice), pg.AsOptions{}, honest); err != nil || got != "honest" {
					t.Fatalf("%s: %q %v", name, got, err)
				}
			}
			if _, err := p.Pipeline(t.Context(), user(bob), pg.AsOptions{}, []pg.Statement{{SQL: forged.sql}}, forged.check); err == nil {
				t.Errorf("%s: no error", name)
			}
			if got, err := first(t, p, user(alice), pg.AsOptions{}, honest); err != nil || got != "honest" {
				t.Errorf("behind %s: %q %v", name, got, err)
			}
		}
	})
}
