package pg_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

// answers are the results as words.
func answers(got []pg.EachResult) []string {
	var out []string
	for _, r := range got {
		switch {
		case r.Err != nil && pg.SQLState(r.Err) != "":
			out = append(out, pg.SQLState(r.Err))
		case r.Err != nil:
			out = append(out, r.Err.Error())
		default:
			out = append(out, strings.Trim(fmt.Sprintf("%s", r.Rows), "[]"))
		}
	}
	return out
}

func each(t *testing.T, p *pg.Pool, sql string, checks []pg.EachCheck, opt pg.AsOptions) []string {
	t.Helper()
	got, err := p.AsEach(t.Context(), sql, checks, opt)
	if err != nil {
		t.Fatalf("AsEach: %v", err)
	}
	return answers(got)
}

const ours = "select count(*)::text from pg_prepared_statements where name ~ '^s_[A-Z2-7]{26}$' and "

// One prepared statement for a role and a search_path; a check that fails before
// its statement takes nothing from the others, nor do they ask twice.
func TestAsEachPrepares(t *testing.T) {
	t.Parallel()
	p := onePool(t, listed(t), "authenticator")
	const sql = "select current_user || '/' || auth.uid()::text || '/' || $1"
	args := [][]byte{[]byte("x")}
	checks := []pg.EachCheck{
		{Claims: sluice.Claims{Role: "nobody"}, Args: args},
		{Claims: user(alice), Args: args},
		{Claims: user(bob), Args: args, Settings: []pg.Setting{{Name: "statement_timeout", Value: "no time"}}},
		{Claims: user(bob), Args: args},
		{Claims: sluice.Claims{Role: "service_role", Subject: bob}, Args: args},
	}
	want := []string{"22023", "authenticated/" + alice + "/x", "22023", "authenticated/" + bob + "/x", "service_role/" + bob + "/x"}
	for i := range 4 {
		if diff := cmp.Diff(want, each(t, p, sql, checks, pg.AsOptions{})); diff != "" {
			t.Errorf("use %d: %s", i, diff)
		}
	}
	if n := ask(t, p, ours+"statement like '%current_user ||%' and generic_plans + custom_plans > 0"); n != "2" {
		t.Errorf("prepared and used %s times, want once for each of two roles", n)
	}
	before := ask(t, p, ours+"true")
	each(t, p, sql, checks, pg.AsOptions{Settings: []pg.Setting{{Name: "search_path", Value: "extensions"}}})
	each(t, p, sql, checks, pg.AsOptions{Settings: []pg.Setting{{Name: "search_path", Value: "extensions"}}})
	if n := ask(t, p, ours+"statement like '%current_user ||%'"); n != "4" {
		t.Errorf("%s prepared statements with another search_path, %s before", n, before)
	}
}

// What was prepared may be of other types, or gone in the middle of the flush:
// the answers are those of now.
func TestAsEachPreparesAgain(t *testing.T) {
	t.Parallel()
	db := listed(t)
	db.Exec(`
create table public.t (a int, b text);
insert into public.t values (1, 'x');
grant select on public.t to authenticated;
create function public.forget(who uuid) returns text language plpgsql as $$
begin if who = '` + alice + `' then execute 'deallocate all'; end if; return 'forgotten'; end $$;`)
	p := onePool(t, db, "authenticator")
	const sql = "select b from public.t where a = $1"
	checks := []pg.EachCheck{{Claims: user(alice), Args: [][]byte{[]byte("1")}}, {Claims: user(bob), Args: [][]byte{[]byte("no number")}}}
	for range 3 {
		if diff := cmp.Diff([]string{"x", "22P02"}, each(t, p, sql, checks, pg.AsOptions{})); diff != "" {
			t.Error(diff)
		}
	}
	if n := ask(t, p, ours+"statement = '"+sql+"'"); n != "1" {
		t.Errorf("prepared %s times: a caller's mistake is none of the statement", n)
	}
	db.Exec("alter table public.t alter a type text using 'no number', alter b type int using 7")
	if diff := cmp.Diff([]string{"", "7"}, each(t, p, sql, checks, pg.AsOptions{})); diff != "" {
		t.Error(diff)
	}

	pid := each(t, p, "select pg_backend_pid()", []pg.EachCheck{{Claims: user(bob)}}, pg.AsOptions{})
	checks = []pg.EachCheck{{Claims: user(bob)}, {Claims: user(alice)}, {Claims: user(bob)}, {Claims: user(alice)}}
	for range 3 {
		want := []string{bob + " forgotten", alice + " forgotten", bob + " forgotten", alice + " forgotten"}
		if diff := cmp.Diff(want, each(t, p, "select auth.uid(), public.forget(auth.uid())", checks, pg.AsOptions{})); diff != "" {
			t.Error(diff)
		}
	}
	if now := each(t, p, "select pg_backend_pid()", []pg.EachCheck{{Claims: user(bob)}}, pg.AsOptions{}); now[0] != pid[0] {
		t.Error("the connection was not kept")
	}
}

// A function that puts statements of its own under the names of ours decides
// nothing, and does not stay on a connection.
func TestAsEachForgedStatements(t *testing.T) {
	t.Parallel()
	forging(t, func(t *testing.T, db *pgtest.DB, listers string) {
		db.Exec(`
create function public.forge(who uuid) returns text language plpgsql as $$
declare p record;
begin
  if who = '` + alice + `' then
    begin
    for p in select name, array_to_string(parameter_types, ',') as types from pg_prepared_statements where name ~ '^s_[A-Z2-7]{26}$' loop
      execute 'deallocate ' || quote_ident(p.name);
      execute 'prepare ' || quote_ident(p.name) || case when p.types <> '' then '(' || p.types || ')' else '' end || ' as select ''forged''::text';
    end loop;
    exception when insufficient_privilege then null;
    end;
  end if;
  return 'decided';
end $$;`)
		p := onePool(t, db, "authenticator")
		const sql = "select current_user || ' ' || public.forge(auth.uid())"
		for range 3 { // until it is prepared
			if got := each(t, p, sql, []pg.EachCheck{{Claims: user(bob)}, {Claims: user(bob)}}, pg.AsOptions{}); got[0] != "authenticated decided" {
				t.Fatal(got)
			}
		}
		got := each(t, p, sql, []pg.EachCheck{{Claims: user(bob)}, {Claims: user(alice)}, {Claims: user(bob)}, {Claims: user(bob)}}, pg.AsOptions{})
		want := []string{"authenticated decided", "authenticated decided", "authenticated decided", "authenticated decided"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if listers != "public" {
			return
		}
		if n := ask(t, p, "select count(*)::text from pg_prepared_statements where from_sql"); n != "0" {
			t.Errorf("%s forged statements stayed", n)
		}
	})
}

// A table that is dropped and made again has another type; a statement prepared
// before is made again too.
func TestAsEachAfterATableIsMadeAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("create table public.again (id int)")
	p := onePool(t, db, "authenticator")
	const sql = "select a.id from pg_catalog.unnest($1::public.again[]) as a"
	for i := range 6 {
		res, err := p.AsEach(t.Context(), sql, []pg.EachCheck{{Claims: user(alice), Args: [][]byte{[]byte(`{"(7)"}`)}}}, pg.AsOptions{})
		if err != nil || res[0].Err != nil || len(res[0].Rows) != 1 || string(res[0].Rows[0][0]) != "7" {
			t.Fatalf("%d: %v %+v", i, err, res)
		}
		if i == 3 {
			db.Exec("drop table public.again; create table public.again (id int)")
		}
	}
}
