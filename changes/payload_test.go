package changes_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice/internal/pgtest"
)

const anonT = `{"schema":"public","table":"t"}`

// published makes a table that anon may select, and a feed.
func published(t *testing.T, ddl string) *feed {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(ddl)
	db.Exec("grant select on public.t to anon; alter publication supabase_realtime add table public.t")
	return newFeed(t, db)
}

// summary is a change in one line: type, record and old record.
func summary(events []event) []string {
	out := []string{}
	for _, e := range events {
		s := e.Data.Type
		if e.Data.Record != nil {
			b, _ := json.Marshal(e.Data.Record)
			s += " " + string(b)
		}
		if e.Data.OldRecord != nil {
			b, _ := json.Marshal(e.Data.OldRecord)
			s += " was " + string(b)
		}
		if len(e.Data.Errors) > 0 {
			s += " " + strings.Join(e.Data.Errors, "; ")
		}
		out = append(out, s)
	}
	return out
}

func wantEvents(t *testing.T, l *listener, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, summary(l.wait(len(want)))); d != "" {
		t.Error(d)
	}
}

// keys returns an object's keys, sorted.
func keys(t *testing.T, raw string) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		t.Fatal(err)
	}
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// spec: pgchanges:1 pgchanges:2 pgchanges:3 pgchanges:4 pgchanges:11 pgchanges:16 pgchanges:20 pgchanges:22 pgchanges:74
func TestBodies(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, body text)")
	l := f.listen(t, claimsOf("anon", ""), anonT)
	f.db.Exec("insert into public.t values (1, 'a')")
	f.db.Exec("update public.t set body = null")
	f.db.Exec("update public.t set id = 2")
	f.db.Exec("delete from public.t")
	wantEvents(t, l, `INSERT {"body":"a","id":1}`, `UPDATE {"body":null,"id":1} was {"id":1}`,
		`UPDATE {"body":null,"id":2} was {"id":1}`, `DELETE was {"id":2}`)
	sets := []string{
		"columns commit_timestamp errors record schema table type", "columns commit_timestamp errors old_record record schema table type",
		"columns commit_timestamp errors old_record record schema table type", "columns commit_timestamp errors old_record schema table type",
	}
	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
	for i, e := range l.got() {
		if k := keys(t, e.Raw); k != sets[i] {
			t.Errorf("keys of %s: %s", e.Data.Type, k)
		}
		if e.Data.Schema != "public" || e.Data.Table != "t" || !strings.Contains(e.Raw, `"errors":null`) {
			t.Errorf("body %s", e.Raw)
		}
		if e.Data.CommitTimestamp == nil || !stamp.MatchString(*e.Data.CommitTimestamp) {
			t.Errorf("commit_timestamp in %s", e.Raw)
		}
		if d := cmp.Diff([]struct{ Name, Type string }{{"id", "int4"}, {"body", "text"}}, e.Data.Columns); d != "" {
			t.Errorf("columns: %s", d)
		}
	}
}

// The time is the commit's, the same for a whole transaction, and in UTC
// whatever the zone of the database.
func TestCommitTimestamp(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("alter database " + db.Name + " set timezone = 'Asia/Kathmandu'")
	db.Exec("create table public.t (id int primary key); grant select on public.t to anon; alter publication supabase_realtime add table public.t")
	f := newFeed(t, db)
	l := f.listen(t, claimsOf("anon", ""), anonT)
	now := func() (s string) {
		const q = `select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`
		if err := db.Admin().QueryRow(t.Context(), q).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := now()
	db.Exec("insert into public.t values (1), (2)")
	got, after := l.wait(2), now()
	first, second := *got[0].Data.CommitTimestamp, *got[1].Data.CommitTimestamp
	if first != second || first < before || first > after {
		t.Errorf("%s and %s, committed between %s and %s", first, second, before, after)
	}
}

// spec: pgchanges:5
func TestCompositeKey(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (a int, x text, b text, primary key (b, a))")
	l := f.listen(t, claimsOf("anon", ""), anonT)
	f.db.Exec("insert into public.t values (1, 'x', 'b')")
	f.db.Exec("update public.t set x = 'y'")
	f.db.Exec("update public.t set a = 2")
	f.db.Exec("delete from public.t")
	wantEvents(t, l, `INSERT {"a":1,"b":"b","x":"x"}`, `UPDATE {"a":1,"b":"b","x":"y"} was {"a":1,"b":"b"}`,
		`UPDATE {"a":2,"b":"b","x":"y"} was {"a":1,"b":"b"}`, `DELETE was {"a":2,"b":"b"}`)
}

// spec: pgchanges:6 pgchanges:7
func TestIdentityFull(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, a text, b int); alter table public.t replica identity full")
	l := f.listen(t, claimsOf("anon", ""), anonT)
	f.db.Exec("insert into public.t values (1, 'a', null)")
	f.db.Exec("update public.t set b = 2")
	f.db.Exec("delete from public.t")
	wantEvents(t, l, `INSERT {"a":"a","b":null,"id":1}`, `UPDATE {"a":"a","b":2,"id":1} was {"a":"a","b":null,"id":1}`,
		`DELETE was {"a":"a","b":2,"id":1}`)
}

// A DELETE without identity FULL brings the key, whether or not policies would
// show the row.
// spec: pgchanges:9
func TestDeleteUnderDefaultIdentity(t *testing.T) {
	t.Parallel()
	for _, rls := range []string{"", "alter table public.t enable row level security"} {
		f := published(t, "create table public.t (id int primary key, a text); "+rls)
		l := f.listen(t, claimsOf("anon", ""), anonT)
		f.db.Exec("insert into public.t values (1, 'a'), (2, 'b')")
		f.db.Exec("delete from public.t")
		want := []string{`DELETE was {"id":1}`, `DELETE was {"id":2}`}
		if rls == "" {
			want = append([]string{`INSERT {"a":"a","id":1}`, `INSERT {"a":"b","id":2}`}, want...)
		}
		wantEvents(t, l, want...)
	}
}

// Identity by an index: its columns alone, whether it changed or not.
func TestIdentityIndex(t *testing.T) {
	t.Parallel()
	f := published(t, `create table public.t (id int primary key, code text not null unique, x int);
		alter table public.t replica identity using index t_code_key`)
	l := f.listen(t, claimsOf("anon", ""), anonT)
	f.db.Exec("insert into public.t values (1, 'a', 1)")
	f.db.Exec("update public.t set x = 2")
	f.db.Exec("update public.t set code = 'b'")
	f.db.Exec("delete from public.t")
	wantEvents(t, l, `INSERT {"code":"a","id":1,"x":1}`, `UPDATE {"code":"a","id":1,"x":2} was {"code":"a"}`,
		`UPDATE {"code":"b","id":1,"x":2} was {"code":"a"}`, `DELETE was {"code":"b"}`)
}

// spec: pgchanges:12
func TestUnchangedToast(t *testing.T) {
	t.Parallel()
	f := published(t, `create table public.t (id int primary key, n int, big text); alter table public.t alter big set storage external;
		alter table public.t replica identity full;
		create table public.d (like public.t including all); alter table public.d alter big set storage external;
		grant select on public.d to anon; alter publication supabase_realtime add table public.d`)
	full := f.listen(t, claimsOf("anon", ""), anonT)
	def := f.listen(t, claimsOf("anon", ""), `{"table":"d"}`)
	filtered := f.listen(t, claimsOf("anon", ""), `{"schema":"public","table":"t","event":"UPDATE","filter":"big=like.xxx%"}`, `{"schema":"public","table":"d","event":"UPDATE","filter":"big=like.xxx%"}`)
	f.db.Exec("insert into public.t values (1, 1, repeat('x', 9000)); insert into public.d values (1, 1, repeat('x', 9000))")
	f.db.Exec("update public.t set n = 2")
	f.db.Exec("update public.d set n = 2")
	e := full.wait(2)[1]
	for name, rec := range map[string]map[string]any{"record": e.Data.Record, "old_record": e.Data.OldRecord} {
		if s, _ := rec["big"].(string); len(s) != 9000 {
			t.Errorf("%s has %d bytes of 9000", name, len(s))
		}
	}
	// Without the old row the value is absent, and the column is still listed.
	e = def.wait(2)[1]
	if _, has := e.Data.Record["big"]; has || len(e.Data.Columns) != 3 {
		t.Errorf("identity default: %s", e.Raw)
	}
	// Filters know it either way.
	filtered.wait(2)
}

// spec: pgchanges:13 pgchanges:14 pgchanges:90
func TestQuotedNames(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`create schema "Odd ""schema""";
		create type "Odd ""schema"""."Color" as enum ('dark red', 'green');
		create table "Odd ""schema"""."a\b.c, d" ("the ""Id""" int primary key, "Hue" "Odd ""schema"""."Color");
		grant usage on schema "Odd ""schema""" to anon; grant select on all tables in schema "Odd ""schema""" to anon;
		alter table "Odd ""schema"""."a\b.c, d" enable row level security;
		create policy "p ""q""" on "Odd ""schema"""."a\b.c, d" using ("the ""Id""" > 0 and "Hue" = any (enum_range(null::"Odd ""schema"""."Color")));
		alter publication supabase_realtime add table "Odd ""schema"""."a\b.c, d"`)
	f := newFeed(t, db)
	l := f.listen(t, claimsOf("anon", ""), `{"schema":"Odd \"schema\"","table":"a\\b.c, d","filter":"Hue=eq.dark red"}`)
	db.Exec(`insert into "Odd ""schema"""."a\b.c, d" values (-1, 'dark red'), (1, 'green'), (2, 'dark red')`)
	wantEvents(t, l, `INSERT {"Hue":"dark red","the \"Id\"":2}`)
	e := l.got()[0]
	if e.Data.Schema != `Odd "schema"` || e.Data.Table != `a\b.c, d` || e.Data.Columns[1].Type != "Color" {
		t.Errorf("body %s", e.Raw)
	}
}

// Names are compared as they are: no pattern, no folding (defect D3).
func TestNamesAreNoPatterns(t *testing.T) {
	t.Parallel()
	f := published(t, `create table public.t (id int primary key);
		create table public.my_tab (id int primary key); create table public.myxtab (id int primary key); create table public."my%tab" (id int primary key);
		grant select on all tables in schema public to anon; alter publication supabase_realtime add table public.my_tab, public.myxtab, public."my%tab"`)
	l := f.listen(t, claimsOf("anon", ""), `{"table":"my_tab"}`)
	f.db.Exec(`insert into public.myxtab values (1); insert into public."my%tab" values (2); insert into public.my_tab values (3)`)
	wantEvents(t, l, `INSERT {"id":3}`)
	if _, _, err := f.tryListen(t, claimsOf("anon", ""), `{"table":"MY_TAB"}`); err == nil {
		t.Error("subscribed to MY_TAB")
	}
}

// spec: pgchanges:15
func TestOrderInATransaction(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, a text)")
	l := f.listen(t, claimsOf("anon", ""), anonT)
	f.db.Exec(`begin; insert into public.t values (1, 'a'); savepoint s; insert into public.t values (9, 'x'); rollback to s;
		update public.t set a = 'b'; truncate public.t; insert into public.t values (2, 'c'); delete from public.t where id = 2; commit`)
	f.db.Exec("insert into public.t values (3, 'd') on conflict do nothing; insert into public.t values (3, 'e') on conflict do nothing")
	f.db.Exec("insert into public.t values (3, 'f') on conflict (id) do update set a = excluded.a")
	wantEvents(t, l, `INSERT {"a":"a","id":1}`, `UPDATE {"a":"b","id":1} was {"id":1}`, `INSERT {"a":"c","id":2}`, `DELETE was {"id":2}`,
		`INSERT {"a":"d","id":3}`, `UPDATE {"a":"f","id":3} was {"id":3}`)
}

// spec: pgchanges:23
func TestTooLarge(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, fits text, not_fits text, nothing text, big text); alter table public.t replica identity full")
	l := f.listen(t, claimsOf("anon", ""), `{"schema":"public","table":"t","filter":"big=like.yyy%"}`)
	f.db.Exec(fmt.Sprintf("insert into public.t values (1, '%s', '%s', null, repeat('y', 1100000))", strings.Repeat("f", 62), strings.Repeat("n", 63)))
	e := l.wait(1)[0]
	if d := cmp.Diff([]string{"Error 413: Payload Too Large"}, e.Data.Errors); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"id": 1.0, "fits": strings.Repeat("f", 62)}, e.Data.Record); d != "" {
		t.Error(d)
	}
	if len(e.Data.Columns) != 5 || e.Data.CommitTimestamp == nil {
		t.Errorf("body %s", e.Raw)
	}
	f.db.Exec("delete from public.t")
	e = l.wait(2)[1]
	if len(e.Data.Errors) != 1 || len(e.Data.OldRecord) != 2 || e.Data.Record != nil {
		t.Errorf("body %s", e.Raw)
	}
}

// Columns that the stream does not have are in neither list; policies and filters
// know them all the same, from the row as it is.
func TestColumnsThatAreNotStreamed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`create table public.t (id int primary key, a text, twice int generated always as (id * 2) stored, hidden text);
		grant select on public.t to anon; alter publication supabase_realtime add table public.t (id, a);
		alter table public.t enable row level security; create policy p on public.t using (hidden = 'yes' and twice > 2)`)
	f := newFeed(t, db)
	l := f.listen(t, claimsOf("anon", ""), anonT, `{"schema":"public","table":"t","filter":"twice=gt.5"}`)
	db.Exec("insert into public.t (id, a, hidden) values (1, 'x', 'yes'), (2, 'x', 'no'), (3, 'x', 'yes')")
	wantEvents(t, l, `INSERT {"a":"x","id":3}`)
	e := l.got()[0]
	if d := cmp.Diff([]struct{ Name, Type string }{{"id", "int4"}, {"a", "text"}}, e.Data.Columns); d != "" || len(e.IDs) != 2 {
		t.Errorf("ids %v, columns %s", e.IDs, d)
	}
}
