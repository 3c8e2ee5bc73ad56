package rest_test

import (
	"strings"
	"testing"
)

// The traps that PostgreSQL has for whoever builds statements (DESIGN.md), each
// shown in SQL and then by a request that does not fall into it. Those with tests
// of their own: the role none (TestRefusedRoles), functions and operators of the
// search_path in place of PostgreSQL's (TestShadowedNames), settings of triggers
// (TestTriggersSetTheAnswer, TestBadControlsUndoTheWrite), what stays in a session
// (TestNothingStaysOnAConnection), a key as a parameter that misses its index
// (TestExpressionIndexIsUsed).
func TestTraps(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.of_login (id int primary key);
insert into public.of_login values (1);
revoke all on public.of_login from anon, authenticated;
grant select on public.of_login to authenticator;
create schema personal;
grant usage on schema personal to anon, authenticated;
create table personal.of_alice (id int primary key, owner uuid not null default auth.uid());
insert into personal.of_alice values (1, '`+alice+`'), (2, '`+bob+`');
alter table personal.of_alice enable row level security;
create policy own on personal.of_alice to authenticated using (owner = auth.uid()) with check (owner = auth.uid());
grant select on personal.of_alice to authenticated;
create table public.arrays (id int primary key, tags text[], nums int[]);
insert into public.arrays values (1, '{a,b}', '{1,2}'), (2, '{"a,b"}', '{12}'), (3, null, '{}');
create table public.split (id int primary key, v text) partition by range (id);
create table public.split_low partition of public.split for values from (0) to (10);
create table public.locked (id int primary key, v text);
create table public.lockers (id int primary key, locked int references public.locked);
create function public.lock_it() returns trigger language plpgsql as $$ begin insert into public.lockers values (new.id, new.id); return new; end $$;
create trigger t after insert on public.locked for each row execute function public.lock_it();
create view public.locked_view as select id, v from public.locked;
create table public.whole (id int primary key, whole text, up int references public.whole);
insert into public.whole values (1, 'a column of the table''s name', null), (2, null, 1);
create table public.nothing (id int primary key, a text, b text);
create table public.parents (id int primary key, nothing int references public.nothing);
insert into public.nothing values (1, null, null);
insert into public.parents values (1, 1), (2, null);
create table public.`+strings.Repeat("l", 60)+`1 (id int primary key);
create table public.`+strings.Repeat("l", 60)+`2 (id int primary key);
create table public.many (id int primary key, a int references public.`+strings.Repeat("l", 60)+`1, b int references public.`+strings.Repeat("l", 60)+`2);
insert into public.`+strings.Repeat("l", 60)+`1 values (1); insert into public.`+strings.Repeat("l", 60)+`2 values (2); insert into public.many values (1, 1, 2);`, nil)

	scan := func(t *testing.T, sql string) (out string) {
		t.Helper()
		if err := s.users.QueryRow(t.Context(), sql).Scan(&out); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return out
	}

	// The role is set in a statement of its own: within one, rights are checked
	// before the role changes.
	t.Run("role in the same statement", func(t *testing.T) {
		if got := scan(t, "select set_config('role', 'anon', true) || (select count(*) from public.of_login)"); got != "anon1" {
			t.Errorf("PostgreSQL now checks later: %s", got)
		}
		wantError(t, s.do("GET /of_login", ""), 401, "42501", "permission denied for table of_login")
		wantError(t, s.do("GET /of_login", "", "As", "alice"), 403, "42501", "permission denied for table of_login")
	})

	// Nothing is prepared before the role is set: the login may not even name what
	// its users may, and what is prepared for one is not used for another.
	t.Run("prepared before BEGIN", func(t *testing.T) {
		c, err := s.users.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Conn().Prepare(t.Context(), "trap", "select * from personal.of_alice")
		c.Release()
		if err == nil {
			t.Error("the login may name what its users may")
		}
		for range 2 * benchConns { // on every connection sent first, prepared, and used again
			s.want(`200 0-0/* [{"id":1}]`, "GET /of_alice?select=id", "", "Accept-Profile", "personal", "As", "alice")
			s.want(`200 0-0/* [{"id":2}]`, "GET /of_alice?select=id", "", "Accept-Profile", "personal", "As", "bob")
			wantError(t, s.do("GET /of_alice?select=id", "", "Accept-Profile", "personal"), 401, "42501", "")
		}
	})

	// A list is one parameter, compared by = ANY; for a column that is an array
	// itself that would look into it.
	t.Run("= any on arrays", func(t *testing.T) {
		s.want(`200 0-0/* [{"id":1}]`, `GET /arrays?select=id&tags=in.("{a,b}")`, "")
		s.want(`200 0-0/* [{"id":2}]`, `GET /arrays?select=id&tags=in.("{\"a,b\"}")`, "")
		s.want(`200 0-1/* [{"id":1}, {"id":3}]`, `GET /arrays?select=id&nums=in.("{1,2}",{})&order=id`, "")
		s.want(`200 0-1/* [{"id":1}, {"id":2}]`, `GET /arrays?select=id&nums=not.in.({})&order=id`, "")
		s.want(`200 */* []`, "GET /arrays?select=id&tags=in.()", "")
		s.want(`200 0-1/* [{"id":1}, {"id":3}]`, "GET /arrays?select=id&id=in.(1,3)&order=id", "")
	})

	// xmax = 0 does not tell a row that was inserted by an upsert: not through a
	// partitioned table or a view, nor once another row refers to it.
	t.Run("xmax", func(t *testing.T) {
		if _, err := s.Admin().Exec(t.Context(), "insert into public.split values (9, 'x') returning xmax"); err == nil {
			t.Error("PostgreSQL now has xmax of a row that goes into a partition")
		}
		for _, table := range []string{"split", "locked", "locked_view"} {
			const merge = "return=representation, resolution=merge-duplicates"
			id := map[string]string{"split": "1", "locked": "1", "locked_view": "2"}[table]
			path := "POST /" + table + "?on_conflict=id"
			s.want(`201 */* [{"id":`+id+`,"v":"new"}]`, path, `{"id":`+id+`,"v":"new"}`, "Prefer", merge)
			s.want(`200 */* [{"id":`+id+`,"v":"again"}]`, path, `{"id":`+id+`,"v":"again"}`, "Prefer", merge)
			s.want(`201 */*`, path, `[{"id":`+id+`,"v":"one is new"},{"id":5`+`,"v":"x"}]`, "Prefer", "resolution=merge-duplicates")
			s.Exec("delete from public.lockers; delete from public.locked where id = 5; delete from public.split where id = 5")
		}
	})

	// A bare alias is the column of that name, if there is one: rows are alias.*.
	t.Run("row or column", func(t *testing.T) {
		s.want(`200 0-0/* [{"id":2,"up":{"id":1,"whole":"a column of the table's name"}}]`, "GET /whole?select=id,up(id,whole)&id=eq.2", "")
		s.want(`200 0-0/* [{"id":1,"whole":[{"id":2,"whole":null}]}]`, "GET /whole?select=id,whole(id,whole)&id=eq.1", "")
	})

	// A row of nothing but NULL is NULL to IS NULL, and yet there.
	t.Run("row of NULLs", func(t *testing.T) {
		s.want(`200 0-1/* [{"id":1,"nothing":{"a":null,"b":null}}, {"id":2,"nothing":null}]`, "GET /parents?select=id,nothing(a,b)&order=id", "")
		s.want(`200 0-0/* [{"id":1,"nothing":{"a":null}}]`, "GET /parents?select=id,nothing!inner(a)", "")
		s.want(`200 0-0/* [{"id":2}]`, "GET /parents?select=id,nothing()&nothing=is.null", "")
	})

	// Names are cut at 63 bytes: two aliases of a statement must not become one.
	t.Run("long names", func(t *testing.T) {
		l := strings.Repeat("l", 60)
		s.want(`200 0-0/* [{"id":1,"`+l+`1":{"id":1},"`+l+`2":{"id":2}}]`, "GET /many?select=id,"+l+"1(id),"+l+"2(id)", "")
	})
}
