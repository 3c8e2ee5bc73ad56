package changes_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/policy"
)

// owned is a table whose rows belong to users.
const owned = `
create table public.t (id int primary key, owner uuid, a text);
alter table public.t enable row level security;
create policy own on public.t for select to authenticated using ((select auth.uid()) = owner);
grant select on public.t to authenticated, anon, service_role;
alter publication supabase_realtime add table public.t;`

func newOwned(t *testing.T, more string) *feed {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(owned + more)
	return newFeed(t, db)
}

func authenticated(n int) sluice.Claims { return claimsOf("authenticated", user(n)) }

// spec: pgchanges:75 pgchanges:68 pgchanges:69
func TestPolicies(t *testing.T) {
	t.Parallel()
	f := newOwned(t, "")
	one := f.listen(t, authenticated(1), anonT)
	two := f.listen(t, authenticated(2), anonT)
	cut := f.listen(t, authenticated(1), `{"schema":"public","table":"t","select":["a"]}`)
	anon := f.listen(t, claimsOf("anon", ""), anonT)
	service := f.listen(t, claimsOf("service_role", ""), anonT)
	f.db.Exec("insert into public.t values (1, $1, 'x')", user(1))
	f.db.Exec("insert into public.t values (2, $1, 'y')", user(2))
	f.db.Exec("insert into public.t values (3, null, 'z')")
	f.db.Exec("update public.t set owner = $1 where id = 1", user(2))
	f.db.Exec("insert into public.t values (4, $1, 'end')", user(1))
	f.db.Exec("insert into public.t values (5, $1, 'end')", user(2))
	if d := cmp.Diff([]int{1, 2, 3, 1, 4, 5}, ids(service.wait(6))); d != "" {
		t.Errorf("service_role: %s", d)
	}
	if d := cmp.Diff([]int{1, 4}, ids(one.wait(2))); d != "" {
		t.Errorf("first user: %s", d)
	}
	if d := cmp.Diff([]int{2, 1, 5}, ids(two.wait(3))); d != "" {
		t.Errorf("second user: %s", d)
	}
	wantEvents(t, cut, `INSERT {"a":"x","id":1}`, `INSERT {"a":"end","id":4}`)
	if got := anon.got(); len(got) != 0 {
		t.Errorf("anon got %v", summary(got))
	}
}

// The version that is delivered is judged, not the row as it is by now (D2).
func TestImageIsJudged(t *testing.T) {
	t.Parallel()
	f := newOwned(t, "")
	one := f.listen(t, authenticated(1), anonT)
	two := f.listen(t, authenticated(2), anonT)
	// In one transaction: whoever judges sees the second owner alone.
	f.db.Exec(fmt.Sprintf(`begin; insert into public.t values (1, '%s', 'first'); update public.t set owner = '%s', a = 'second'; delete from public.t; commit`, user(1), user(2)))
	wantEvents(t, one, `INSERT {"a":"first","id":1,"owner":"`+user(1)+`"}`, `DELETE was {"id":1}`)
	wantEvents(t, two, `UPDATE {"a":"second","id":1,"owner":"`+user(2)+`"} was {"id":1}`, `DELETE was {"id":1}`)
}

// Under identity FULL an old row is shown to those who could see it, and a DELETE
// reaches nobody else.
func TestOldRowsUnderPolicies(t *testing.T) {
	t.Parallel()
	f := newOwned(t, "alter table public.t replica identity full;")
	one := f.listen(t, authenticated(1), anonT)
	two := f.listen(t, authenticated(2), anonT)
	service := f.listen(t, claimsOf("service_role", ""), anonT)
	f.db.Exec("insert into public.t values (1, $1, 'x')", user(1))
	f.db.Exec("update public.t set a = 'y'")
	f.db.Exec("update public.t set owner = $1", user(2))
	f.db.Exec("delete from public.t")
	f.db.Exec("insert into public.t values (2, $1, 'end')", user(1))
	row := func(u int, a string) string { return fmt.Sprintf(`{"a":%q,"id":1,"owner":%q}`, a, user(u)) }
	wantEvents(t, one, "INSERT "+row(1, "x"), "UPDATE "+row(1, "y")+" was "+row(1, "x"), `INSERT {"a":"end","id":2,"owner":"`+user(1)+`"}`)
	wantEvents(t, two, "UPDATE "+row(2, "y")+` was {"id":1}`, "DELETE was "+row(2, "y"))
	service.wait(5)
	if got := summary(service.got())[3]; got != "DELETE was "+row(2, "y") {
		t.Errorf("service_role: %s", got)
	}
}

// An old row of which only the replica identity is known cannot be judged: its
// primary key may be shown, other columns of the identity may not.
func TestOldIdentityUnderPolicies(t *testing.T) {
	t.Parallel()
	f := newOwned(t, `alter table public.t add unique (a), alter a set not null; alter table public.t replica identity using index t_a_key;`)
	one := f.listen(t, authenticated(1), anonT)
	service := f.listen(t, claimsOf("service_role", ""), anonT)
	f.db.Exec("insert into public.t values (1, $1, 'secret of another')", user(2))
	f.db.Exec("update public.t set owner = $1, a = 'mine'", user(1))
	f.db.Exec("update public.t set id = 2")
	f.db.Exec("delete from public.t")
	row := func(id int) string { return fmt.Sprintf(`UPDATE {"a":"mine","id":%d,"owner":%q}`, id, user(1)) }
	wantEvents(t, one, row(1)+` was {}`, row(2)+` was {"a":"mine"}`, `DELETE was {}`)
	service.wait(4)
	if got := summary(service.got())[1:]; got[0] != row(1)+` was {"a":"secret of another"}` || got[2] != `DELETE was {"a":"mine"}` {
		t.Errorf("service_role: %q", got)
	}
}

// spec: pgchanges:76 pgchanges:77 pgchanges:78
func TestColumnPrivileges(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`create table public.t (id int primary key, a text, b text);
		revoke all on public.t from anon, authenticated;
		grant select (id, a) on public.t to anon; grant select (a, b) on public.t to authenticated; grant select on public.t to service_role;
		alter publication supabase_realtime add table public.t`)
	f := newFeed(t, db)
	anon := f.listen(t, claimsOf("anon", ""), anonT)
	nokey := f.listen(t, authenticated(1), `{"schema":"public","table":"t","filter":"a=eq.nothing like it"}`)
	service := f.listen(t, claimsOf("service_role", ""), anonT)
	db.Exec("insert into public.t values (1, 'a', 'b')")
	db.Exec("update public.t set b = 'c'")
	db.Exec("delete from public.t")
	db.Exec("insert into public.t values (2)")
	wantEvents(t, anon, `INSERT {"a":"a","id":1}`, `UPDATE {"a":"a","id":1} was {"id":1}`, `DELETE was {"id":1}`, `INSERT {"a":null,"id":2}`)
	if d := cmp.Diff([]struct{ Name, Type string }{{"id", "int4"}, {"a", "text"}}, anon.got()[0].Data.Columns); d != "" {
		t.Error(d)
	}
	service.wait(4)
	wantEvents(t, service, `INSERT {"a":"a","b":"b","id":1}`, `UPDATE {"a":"a","b":"c","id":1} was {"id":1}`, `DELETE was {"id":1}`, `INSERT {"a":null,"b":null,"id":2}`)
	// No DELETE: its key is what may not be seen.
	wantEvents(t, nokey, `INSERT {} Error 401: Unauthorized`, `UPDATE {} was {} Error 401: Unauthorized`, `INSERT {} Error 401: Unauthorized`)
	const raw = `{"type":"INSERT","schema":"public","table":"t","commit_timestamp":null,"columns":[],"record":{},"errors":["Error 401: Unauthorized"]}`
	if got := nokey.got()[0]; got.Raw != raw {
		t.Errorf("body %s", got.Raw)
	}
}

// spec: pgchanges:79
func TestNoPrimaryKey(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int, a text); alter table public.t replica identity full")
	l := f.listen(t, claimsOf("anon", ""), `{"schema":"public","table":"t","filter":"id=eq.5"}`)
	f.db.Exec("insert into public.t values (1, 'a'), (5, 'b')")
	f.db.Exec("update public.t set a = 'c' where id = 1")
	f.db.Exec("delete from public.t")
	wantEvents(t, l, `INSERT {} Error 400: Bad Request, no primary key`, `INSERT {} Error 400: Bad Request, no primary key`,
		`UPDATE {} was {} Error 400: Bad Request, no primary key`, `DELETE was {"a":"b","id":5}`)
	const raw = `{"type":"INSERT","schema":"public","table":"t","commit_timestamp":null,"columns":[],"record":{},"errors":["Error 400: Bad Request, no primary key"]}`
	if got := l.got()[0]; got.Raw != raw {
		t.Errorf("body %s", got.Raw)
	}
}

// Role names are taken exactly: hyphens, and upper case (D14).
// spec: pgchanges:80
func TestRoleNames(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(owned)
	suffix := db.Name // roles belong to the whole server
	for _, r := range []string{"weird-role " + suffix, "Upper" + suffix, "upper" + suffix} {
		db.Exec(fmt.Sprintf(`create role %[1]q; grant %[1]q to authenticator; grant usage on schema public to %[1]q; grant select on public.t to %[1]q;
			create policy %[1]q on public.t for select to %[1]q using (a = current_user)`, r))
	}
	f := newFeed(t, db)
	for i, r := range []string{"weird-role " + suffix, "Upper" + suffix, "upper" + suffix} {
		l := f.listen(t, claimsOf(r, ""), anonT)
		db.Exec("insert into public.t values ($1, null, 'somebody')", 10*i)
		db.Exec("insert into public.t values ($1, null, $2)", 10*i+1, r)
		if d := cmp.Diff([]int{10*i + 1}, ids(l.wait(1))); d != "" {
			t.Errorf("%s: %s", r, d)
		}
	}
	t.Cleanup(func() {
		for _, r := range []string{"weird-role " + suffix, "Upper" + suffix, "upper" + suffix} {
			db.Exec(fmt.Sprintf("drop owned by %[1]q; drop role %[1]q", r))
		}
	})
}

// spec: pgchanges:81
func TestOnlyPublishedTables(t *testing.T) {
	t.Parallel()
	f := published(t, `create table public.t (id int primary key); create table public.u (id int primary key);
		grant select on public.u to anon; alter publication supabase_realtime add table public.u`)
	l := f.listen(t, claimsOf("anon", ""), anonT)
	u := f.listen(t, claimsOf("anon", ""), `{"table":"u"}`)
	f.db.Exec("insert into public.t values (1)")
	f.db.Exec("alter publication supabase_realtime drop table public.t")
	f.db.Exec("insert into public.t values (2)")
	f.db.Exec("insert into public.u values (1)") // the other table is not disturbed
	u.wait(1)
	f.db.Exec("alter publication supabase_realtime add table public.t")
	f.db.Exec("insert into public.t values (3)")
	// The subscription is live again by itself.
	if d := cmp.Diff([]int{1, 3}, ids(l.wait(2))); d != "" {
		t.Error(d)
	}
	f.db.Exec("alter publication supabase_realtime set (publish = 'insert')")
	f.db.Exec("update public.u set id = 2; insert into public.u values (3)")
	u.wait(2)
	f.db.Exec("alter publication supabase_realtime set (publish = 'update, delete')")
	f.db.Exec("insert into public.u values (4); delete from public.u where id = 3")
	wantEvents(t, u, `INSERT {"id":1}`, `INSERT {"id":3}`, `DELETE was {"id":3}`)
}

// spec: pgchanges:82
func TestManySubscribersOfACustomRole(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	role := "custom_" + db.Name
	db.Exec(fmt.Sprintf(`create table public.t (id int primary key); alter table public.t enable row level security;
		create policy p on public.t using (current_setting('request.jwt.claims', true)::jsonb ->> 'sub' <> '');
		revoke execute on all functions in schema realtime from public;
		create role %[1]s; grant %[1]s to authenticator; grant usage on schema public to %[1]s; grant select on public.t to %[1]s;
		alter publication supabase_realtime add table public.t`, role))
	t.Cleanup(func() { db.Exec("drop owned by " + role + "; drop role " + role) })
	f := newFeed(t, db)
	var all []*listener
	for i := range 25 {
		all = append(all, f.listen(t, claimsOf(role, user(i)), anonT))
	}
	db.Exec("insert into public.t values (1)")
	for _, l := range all {
		l.wait(1)
	}
}

// A schema that even the reader's role may not use is of no concern, and one that
// the user's role may not use shows nothing.
// spec: pgchanges:83
func TestSchemaUsage(t *testing.T) {
	t.Parallel()
	f := published(t, `create table public.t (id int primary key);
		create schema closed; create table closed.t (id int primary key); grant select on closed.t to anon;
		alter publication supabase_realtime add table closed.t;
		create role nobody_special; alter schema closed owner to nobody_special; revoke all on schema closed from public`)
	t.Cleanup(func() { f.db.Exec("drop schema closed cascade; drop role nobody_special") })
	l := f.listen(t, claimsOf("anon", ""), `{"schema":"*","table":"t"}`)
	f.db.Exec("insert into closed.t values (1)")
	f.db.Exec("insert into public.t values (2)")
	f.db.Exec("grant usage on schema closed to anon")
	f.db.Exec("insert into closed.t values (3)")
	got := ids(l.wait(2))
	if len(got) != 2 || got[0]+got[1] != 5 {
		t.Errorf("got %v", got)
	}
}

// A policy that raises is no for the rows that raise, and for nobody else.
func TestPolicyThatRaises(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`create table public.t (id int primary key, n int); alter table public.t enable row level security;
		create policy p on public.t for select using (100 / n > 0 or auth.uid() is null);
		create table public.calm (id int primary key); grant select on public.t, public.calm to authenticated;
		alter publication supabase_realtime add table public.t, public.calm`)
	f := newFeed(t, db)
	good := f.listen(t, authenticated(1), anonT, `{"table":"calm"}`)
	bad := f.listen(t, claimsOf("authenticated", "not a uuid"), anonT, `{"table":"calm"}`)
	// One transaction: the batch is halved until the rows are found.
	db.Exec("insert into public.t select g, case when g % 7 = 3 then 0 else 1 end from generate_series(1, 40) g")
	var want []int
	for i := 1; i <= 40; i++ {
		if i%7 != 3 {
			want = append(want, i)
		}
	}
	if d := cmp.Diff(want, ids(good.wait(len(want)))); d != "" {
		t.Error(d)
	}
	if n := f.Metrics().DeniedByError.Load(); n < 6 {
		t.Errorf("%d denials are counted", n)
	}
	db.Exec("insert into public.calm values (1000)")
	got := ids(bad.wait(1))
	// 100 / n > 0 is true before auth.uid() is asked.
	if got[len(got)-1] != 1000 && len(got) > len(want)+1 {
		t.Errorf("got %v", got)
	}
}

// A policy that hangs costs its own table, for a bounded time.
func TestPolicyThatHangs(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(owned + `create policy slow on public.t for select to anon using (a <> 'slow' or pg_sleep(60) is null);`)
	f := newFeed(t, db, func(c *changes.Config) { c.CheckTimeout = time.Second })
	anon := f.listen(t, claimsOf("anon", ""), anonT)
	db.Exec("insert into public.t values (1, null, 'slow')")
	db.Exec("insert into public.t values (2, null, 'quick')")
	if d := cmp.Diff([]int{2}, ids(anon.wait(1))); d != "" {
		t.Error(d)
	}
}

// Catalog changes hold from the transaction on that makes them.
func TestCatalogChangesInOrder(t *testing.T) {
	t.Parallel()
	f := newOwned(t, "")
	anon := f.listen(t, claimsOf("anon", ""), anonT)
	one := f.listen(t, authenticated(1), anonT)
	step := 0
	insert := func() {
		step++
		f.db.Exec("insert into public.t values ($1, $2, 'x')", step, user(1))
		one.wait(step) // the catalog is looked at when a change is decided
	}
	insert() // 1: anon has no policy
	f.db.Exec("create policy everybody on public.t for select to anon using (true)")
	insert() // 2
	f.db.Exec("alter policy everybody on public.t using (id > 3)")
	insert() // 3: not for anon
	insert() // 4
	f.db.Exec("revoke select on public.t from anon")
	insert() // 5: error 401
	f.db.Exec("grant select on public.t to anon; drop policy everybody on public.t")
	insert() // 6: no policy
	f.db.Exec("alter table public.t disable row level security")
	insert() // 7
	f.db.Exec("alter table public.t enable row level security; alter table public.t rename column a to renamed")
	insert() // 8: not for anon
	f.db.Exec("alter table public.t add column extra int default 5; alter table public.t drop column renamed")
	f.db.Exec("insert into public.t values (9, $1)", user(1))
	one.wait(9)
	f.db.Exec("alter table public.t alter column id type text")
	f.db.Exec("insert into public.t values ('ten', $1)", user(1))
	got := summary(one.wait(10))
	if d := cmp.Diff(rowsOf(user(1), `"a":"x",`, 1, 7), got[:7]); d != "" {
		t.Error(d)
	}
	owner := `"owner":"` + user(1) + `"`
	if d := cmp.Diff([]string{`INSERT {"id":8,` + owner + `,"renamed":"x"}`, `INSERT {"extra":5,"id":9,` + owner + `}`, `INSERT {"extra":5,"id":"ten",` + owner + `}`}, got[7:]); d != "" {
		t.Error(d)
	}
	wantEvents(t, anon, `INSERT {"a":"x","id":2,`+owner+`}`, `INSERT {"a":"x","id":4,`+owner+`}`, `INSERT {} Error 401: Unauthorized`, `INSERT {"a":"x","id":7,`+owner+`}`)
}

// A row and DDL in one transaction: the definition that is known is older than
// the table.
func TestDDLBehindARow(t *testing.T) {
	t.Parallel()
	f := newOwned(t, "")
	one := f.listen(t, authenticated(1), anonT)
	f.db.Exec(fmt.Sprintf(`begin; insert into public.t values (1, '%s', 'x'); alter table public.t drop column a; commit`, user(1)))
	one.wait(1)
	f.db.Exec(fmt.Sprintf(`begin; insert into public.t values (2, '%s'); alter table public.t add column b int; alter table public.t rename column owner to who; commit`, user(1)))
	wantEvents(t, one, `INSERT {"id":1,"owner":"`+user(1)+`"}`, `INSERT {"id":2}`)
}

func rowsOf(owner, more string, from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprintf(`INSERT {%s"id":%d,"owner":%q}`, more, i, owner))
	}
	return out
}

// Members of roles are noticed within a second or so without anything in the
// stream, also what happens in the first second, or while nobody listens.
func TestRoleChanges(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	role, group := "member_"+db.Name, "group_"+db.Name
	db.Exec(owned + fmt.Sprintf(`create role %[1]s; create role %[2]s; grant %[1]s to authenticator; grant usage on schema public to %[1]s;
		grant select on public.t to %[1]s; create policy g on public.t for select to %[2]s using (true)`, role, group))
	t.Cleanup(func() { db.Exec(fmt.Sprintf("drop owned by %[1]s, %[2]s; drop role %[1]s, %[2]s", role, group)) })
	f := newFeed(t, db, func(c *changes.Config) { c.FingerprintEvery = 50 * time.Millisecond })
	l := f.listen(t, claimsOf(role, ""), anonT)
	service := f.listen(t, claimsOf("service_role", ""), anonT)
	row := 0
	insert := func() {
		row++
		db.Exec("insert into public.t values ($1)", row)
		service.wait(row)
	}
	insert()
	db.Exec("grant " + group + " to " + role)
	for len(l.got()) == 0 {
		if insert(); row == 2000 {
			t.Fatal("the grant is not noticed")
		}
	}
	if got := ids(l.got()); got[0] == 1 {
		t.Error("a row from before the grant came")
	}
	l.sub.Close()
	service.sub.Close()
	db.Exec("revoke " + group + " from " + role)
	l, service, row = f.listen(t, claimsOf(role, ""), anonT), f.listen(t, claimsOf("service_role", ""), anonT), 0
	db.Exec("truncate public.t")
	for came := -1; came != len(l.got()); { // until a row does not come
		if came = len(l.got()); row > 2000 {
			t.Fatal("that it is revoked is not noticed")
		}
		insert()
		insert() // when this one has come, the first is decided for everybody
	}
}

// Where no event trigger tells of it, grants and row level security are noticed by
// the fingerprint.
func TestCatalogChangesWithoutEventTriggers(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("create table public.t (id int primary key, a text); grant select on public.t to anon, service_role; alter publication supabase_realtime add table public.t")
	f := newFeed(t, db, func(c *changes.Config) { c.FingerprintEvery = 50 * time.Millisecond })
	l := f.listen(t, claimsOf("anon", ""), anonT)
	service := f.listen(t, claimsOf("service_role", ""), anonT)
	row := 0
	// last returns what anon got of one more row.
	last := func() string {
		before := len(l.got())
		for range 2 { // when the second has come to somebody, the first is done
			row++
			db.Exec("insert into public.t values ($1, 'x')", row)
			service.wait(row)
		}
		if got := summary(l.got()); len(got) > before {
			return strings.ReplaceAll(got[before], fmt.Sprint(row-1), "N")
		}
		return ""
	}
	db.Exec("alter event trigger sluice_ddl_command_end disable; alter event trigger sluice_sql_drop disable") // the stream tells nothing
	for _, step := range []struct{ ddl, want string }{
		{"revoke select on public.t from anon", `INSERT {} Error 401: Unauthorized`},
		{"grant select (id) on public.t to anon", `INSERT {"id":N}`},
		{"grant select (a) on public.t to anon", `INSERT {"a":"x","id":N}`},
		{"alter table public.t enable row level security", ""},
		{"create policy p on public.t using (true)", `INSERT {"a":"x","id":N}`},
		{"create function public.ok(i int) returns boolean language sql stable as $$ select false $$; alter policy p on public.t using (public.ok(id))", ""},
		{"create or replace function public.ok(i int) returns boolean language sql stable as $$ select true $$", `INSERT {"a":"x","id":N}`},
		{"revoke usage on schema public from anon, public", ""},
	} {
		db.Exec(step.ddl)
		for tries := 0; last() != step.want; tries++ {
			if tries == 2000 {
				t.Fatalf("%s is not noticed", step.ddl)
			}
		}
	}
}

// Policies that apply through roles: inherited, to everybody, restrictive, for
// the owner, forced.
func TestPolicyCombinations(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner, member := "owner_"+db.Name, "heir_"+db.Name
	db.Exec(owned + fmt.Sprintf(`create role %[1]s; create role %[2]s in role authenticated; grant %[1]s, %[2]s to authenticator;
		create policy r on public.t as restrictive for select using (id %% 2 = 0);
		create policy i on public.t for insert with check (false); create policy u on public.t for update using (true);
		grant usage, create on schema public to %[1]s; alter table public.t owner to %[1]s;`, owner, member))
	t.Cleanup(func() { db.Exec(fmt.Sprintf("drop owned by %[1]s, %[2]s; drop role %[1]s, %[2]s", owner, member)) })
	f := newFeed(t, db)
	heir := f.listen(t, claimsOf(member, user(1)), anonT)
	one := f.listen(t, authenticated(1), anonT)
	own := f.listen(t, claimsOf(owner, user(1)), anonT)
	// The catalog is looked at when a change is decided: each step is waited for.
	insert := func(from int) {
		t.Helper()
		for id := from; id < from+2; id++ {
			db.Exec("insert into public.t values ($1, $2)", id, user(1))
		}
		one.wait((from + 1) / 2)
	}
	insert(1)
	db.Exec("alter table public.t force row level security")
	insert(3)
	db.Exec("alter table public.t no force row level security")
	insert(5)
	if d := cmp.Diff([]int{1, 2, 5, 6}, ids(own.wait(4))); d != "" {
		t.Errorf("owner: %s", d)
	}
	for name, l := range map[string]*listener{"member of authenticated": heir, "authenticated": one} {
		if d := cmp.Diff([]int{2, 4, 6}, ids(l.wait(3))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// A privilege that is taken away closes the filter too (D17).
func TestRevokedFilterColumn(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, a int)")
	f.db.Exec("revoke all on public.t from anon; grant select (id, a) on public.t to anon")
	l := f.listen(t, claimsOf("anon", ""), `{"schema":"public","table":"t","filter":"a=gt.0"}`, `{"schema":"public","table":"t","filter":"id=gt.0"}`)
	f.db.Exec("insert into public.t values (1, 1)")
	f.db.Exec("revoke select (a) on public.t from anon")
	f.db.Exec("insert into public.t values (2, 2)")
	got := l.wait(2)
	if d := cmp.Diff([][]int64{{1, 2}, {2}}, [][]int64{got[0].IDs, got[1].IDs}); d != "" {
		t.Error(d)
	}
}

// New claims are in force for what is decided from then on.
func TestSetClaims(t *testing.T) {
	t.Parallel()
	f := newOwned(t, "")
	l := f.listen(t, authenticated(1), anonT)
	f.db.Exec("insert into public.t values (1, $1), (2, $2)", user(1), user(2))
	l.wait(1)
	if _, err := l.sub.SetClaims(t.Context(), authenticated(2)); err != nil {
		t.Fatal(err)
	}
	f.db.Exec("insert into public.t values (3, $1), (4, $2)", user(1), user(2))
	if d := cmp.Diff([]int{1, 4}, ids(l.wait(2))); d != "" {
		t.Error(d)
	}
	if _, err := l.sub.SetClaims(t.Context(), claimsOf("nosuch", "")); err == nil {
		t.Error("claims of a role that does not exist were taken")
	}
	l.sub.Close()
	l.sub.Close()
	f.db.Exec("insert into public.t values (5, $1)", user(2))
	end := f.listen(t, authenticated(2), anonT)
	f.db.Exec("insert into public.t values (6, $1)", user(2))
	end.wait(1)
	if n := len(l.got()); n != 2 {
		t.Errorf("%d events after Close", n-2)
	}
}

// A token that is renewed while its changes are being decided costs none of them:
// they are decided again, for whom the subscription is by then.
func TestClaimsChangeDuringADecision(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(owned + `create function public.wait() returns boolean language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(42); return true; end $$;
		create policy slow on public.t as restrictive for select using (public.wait());`)
	f := newFeed(t, db, func(c *changes.Config) { c.CheckTimeout = time.Minute })
	l := f.listen(t, authenticated(1), anonT)
	renewed, other := authenticated(1), f.listen(t, authenticated(1), anonT)
	renewed.JSON = json.RawMessage(`{"role":"authenticated","sub":"` + user(1) + `","iat":1}`)

	conn, err := db.Admin().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), "select pg_advisory_lock(42)"); err != nil {
		t.Fatal(err)
	}
	db.Exec("insert into public.t values (1, $1), (2, $2), (3, $1)", user(1), user(2))
	for waiting := false; !waiting; { // until the policy hangs
		if err := conn.QueryRow(t.Context(), "select exists (select from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database()))").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	for l, c := range map[*listener]sluice.Claims{l: renewed, other: authenticated(2)} {
		if _, err := l.sub.SetClaims(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(t.Context(), "select pg_advisory_unlock(42)"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{1, 3}, ids(l.wait(2))); d != "" {
		t.Errorf("renewed: %s", d)
	}
	if d := cmp.Diff([]int{2}, ids(other.wait(1))); d != "" {
		t.Errorf("somebody else: %s", d)
	}
}

// Partitions: leaves under their own names, or the root under its; policies of an
// ancestor protect a leaf that has none (D12).
func TestPartitions(t *testing.T) {
	t.Parallel()
	for _, viaRoot := range []bool{false, true} {
		t.Run(fmt.Sprintf("via_root=%t", viaRoot), func(t *testing.T) {
			db := pgtest.New(t)
			db.Exec(fmt.Sprintf(`create table public.p (id int primary key, owner uuid, a text) partition by range (id);
				create table public.p1 partition of public.p for values from (0) to (10);
				create table public.p2 (owner uuid, dropped int, id int not null, a text); alter table public.p2 drop column dropped;
				alter table public.p attach partition public.p2 for values from (10) to (20);
				alter table public.p enable row level security;
				create policy own on public.p for select using (p.owner = auth.uid() and exists (select from (values (p.id)) v where v.column1 > 0));
				grant select on public.p, public.p1, public.p2 to authenticated;
				alter publication supabase_realtime set (publish_via_partition_root = %t);
				alter publication supabase_realtime add table public.p`, viaRoot))
			f := newFeed(t, db)
			one := f.listen(t, authenticated(1), `{"schema":"public"}`)
			two := f.listen(t, authenticated(2), `{"schema":"public"}`)
			_, _, err := f.tryListen(t, authenticated(1), `{"table":"p"}`)
			if (err == nil) != viaRoot {
				t.Errorf("subscribing to the root: %v", err)
			}
			db.Exec("insert into public.p values (1, $1, 'x'), (11, $2, 'y')", user(1), user(2))
			db.Exec("update public.p set id = 12 where id = 1") // moves: DELETE and INSERT
			names := func(events []event) (out []string) {
				for _, e := range events {
					out = append(out, e.Data.Table+" "+e.Data.Type)
				}
				return out
			}
			first, second := []string{"p1 INSERT", "p1 DELETE", "p2 INSERT"}, []string{"p2 INSERT", "p1 DELETE"}
			if viaRoot {
				first, second = []string{"p INSERT", "p DELETE", "p INSERT"}, []string{"p INSERT", "p DELETE"}
			}
			got := names(one.wait(len(first)))
			if !viaRoot { // p1 and p2 have workers of their own
				if d := cmp.Diff(map[string]bool{first[0]: true, first[1]: true, first[2]: true}, map[string]bool{got[0]: true, got[1]: true, got[2]: true}); d != "" {
					t.Error(d)
				}
				two.wait(2)
				return
			}
			if d := cmp.Diff(first, got); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(second, names(two.wait(2))); d != "" {
				t.Error(d)
			}
		})
	}
}

// Connections that break cost nothing: what they were to decide is decided on
// others.
// spec: pgchanges:96
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	f := newOwned(t, `create policy all_rows on public.t for select to anon using (true);`)
	l := f.listen(t, claimsOf("anon", ""), `{"schema":"public","table":"t","filter":"a=like.x%"}`)
	for i := 1; i <= 20; i++ {
		if i%5 == 0 {
			f.db.Exec("comment on table public.t is 'the definition is read again'; grant select on public.t to anon")
		}
		f.db.Exec("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'pgtest' and pid <> pg_backend_pid()")
		f.db.Exec("insert into public.t values ($1, null, 'x')", i)
		if got := ids(l.wait(i)); got[i-1] != i {
			t.Fatalf("got %v", got)
		}
	}
}

// Policies that show every row cost no question.
func TestNothingToAsk(t *testing.T) {
	t.Parallel()
	f := newOwned(t, `create policy everything on public.t for select to anon using (true);`)
	l := f.listen(t, claimsOf("anon", ""), anonT)
	service := f.listen(t, claimsOf("service_role", ""), anonT)
	f.db.Exec("insert into public.t values (1, null, 'x')")
	l.wait(1)
	service.wait(1)
	if n := f.Metrics().Tiers[policy.TierUser].Load(); n != 0 {
		t.Errorf("%d questions were asked", n)
	}
	// Another policy beside it, and they are.
	f.db.Exec("create policy more on public.t as restrictive for select to anon using (id <> 2)")
	f.db.Exec("insert into public.t values (2, null, 'x'), (3, null, 'x')")
	if d := cmp.Diff([]int{1, 3}, ids(l.wait(2))); d != "" {
		t.Error(d)
	}
}

// Whole rows as one value, in a function that takes the table's row.
func TestPolicyOnWholeRow(t *testing.T) {
	t.Parallel()
	f := newOwned(t, `create function public.readable(r public.t) returns boolean language sql stable as $$ select r.a = 'yes' $$;
		create policy whole on public.t for select to anon using (public.readable(t));`)
	l := f.listen(t, claimsOf("anon", ""), anonT)
	f.db.Exec("insert into public.t values (1, null, 'no'), (2, null, 'yes'), (3, null, null), (4, null, 'yes')")
	if d := cmp.Diff([]int{2, 4}, ids(l.wait(2))); d != "" {
		t.Error(d)
	}
}
