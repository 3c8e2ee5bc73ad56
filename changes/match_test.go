package changes_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

// spec: pgchanges:24 pgchanges:25 pgchanges:26 pgchanges:27 pgchanges:28
func TestEvents(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key)")
	want := map[string]string{"*": "INSERT UPDATE DELETE", "insert": "INSERT", "UPDATE": "UPDATE", "Delete": "DELETE", "nonsense": "INSERT UPDATE DELETE"}
	listeners := map[string]*listener{}
	for event := range want {
		listeners[event] = f.listen(t, claimsOf("anon", ""), `{"table":"t","schema":"public","event":"`+event+`"}`)
	}
	two := f.listen(t, claimsOf("anon", ""), `{"table":"t","event":"INSERT"}`, `{"table":"t","event":"DELETE"}`)
	end := f.listen(t, claimsOf("anon", ""), anonT)
	f.db.Exec("insert into public.t values (1)")
	f.db.Exec("update public.t set id = 2")
	f.db.Exec("delete from public.t")
	f.db.Exec("truncate public.t")
	end.wait(3)
	for event, l := range listeners {
		var got []string
		for _, e := range l.wait(len(strings.Fields(want[event]))) {
			got = append(got, e.Data.Type)
		}
		if s := strings.Join(got, " "); s != want[event] {
			t.Errorf("%s: %s", event, s)
		}
	}
	var got []string
	for _, e := range two.wait(2) {
		got = append(got, fmt.Sprint(e.Data.Type, e.IDs))
	}
	if d := cmp.Diff([]string{"INSERT[1]", "DELETE[2]"}, got); d != "" {
		t.Errorf("two bindings: %s", d)
	}
}

// spec: pgchanges:29 pgchanges:92
func TestWildcards(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`create schema other; grant usage on schema other to anon;
		create table public.a (id int primary key); create table public.b (id int primary key); create table public.secret (id int primary key);
		create table other.a (id int primary key); create table public.unpublished (id int primary key);
		grant select on all tables in schema public, other to anon; revoke all on public.secret from anon;
		alter publication supabase_realtime add table public.a, public.b, public.secret, other.a`)
	f := newFeed(t, db)
	anon := claimsOf("anon", "")
	schema := f.listen(t, anon, `{"schema":"public","event":"*"}`)
	all := f.listen(t, anon, `{"schema":"*","table":"*"}`)
	table := f.listen(t, anon, `{"schema":"*","table":"a"}`)
	several := f.listen(t, anon, `{"schema":"public","table":"a"}`, `{"schema":"public"}`, `{"schema":"other"}`)
	nothing := f.listen(t, anon, `{"schema":"public","table":"b","event":"DELETE"}`)
	db.Exec("insert into public.unpublished values (0); insert into public.a values (1); insert into public.b values (2); insert into other.a values (3); insert into public.secret values (4)")
	// Tables have workers of their own: order holds within a table alone.
	counts := func(events []event) map[string]int {
		out := map[string]int{}
		for _, e := range events {
			out[fmt.Sprintf("%s.%s%v%v", e.Data.Schema, e.Data.Table, e.IDs, e.Data.Errors)]++
		}
		return out
	}
	for _, tt := range []struct {
		name string
		l    *listener
		want map[string]int
	}{
		{"schema", schema, map[string]int{"public.a[1][]": 1, "public.b[1][]": 1, "public.secret[1][Error 401: Unauthorized]": 1}},
		{"all", all, map[string]int{"public.a[1][]": 1, "public.b[1][]": 1, "other.a[1][]": 1, "public.secret[1][Error 401: Unauthorized]": 1}},
		{"table", table, map[string]int{"public.a[1][]": 1, "other.a[1][]": 1}},
		{"several", several, map[string]int{"public.a[1 2][]": 1, "public.b[2][]": 1, "other.a[3][]": 1, "public.secret[2][Error 401: Unauthorized]": 1}},
	} {
		if d := cmp.Diff(tt.want, counts(tt.l.wait(len(tt.want)))); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
	if got := nothing.got(); len(got) != 0 {
		t.Errorf("no binding matches, but %v came", got)
	}
	// A table that is added later is in.
	db.Exec("alter publication supabase_realtime add table public.unpublished")
	db.Exec("insert into public.unpublished values (5)")
	if got := schema.wait(4)[3]; got.Data.Table != "unpublished" {
		t.Errorf("got %s", got.Raw)
	}
}

const filterTable = `
create table public.t (id int primary key, name text, big bigint, uid uuid, flag boolean, note text, num numeric, f float8, vc varchar(3), ch char(3),
  mood public.mood, at timestamptz, d date, iv interval, r int4range, ip inet, j jsonb, js json, b bytea, ci extensions.citext, arr int[], p point, bits bit(3), pos public.posint, ad public.addr, h extensions.hstore);
alter table public.t replica identity full`

const filterRows = `
insert into public.t values
 (1, 'apple', 10, '123e4567-e89b-12d3-a456-426614174000', true, null, 1.50, 'NaN', 'abc', 'a', 'happy', '2024-01-01 12:00+00', '2024-01-01', '1 day', '[1,5)', '10.0.0.1', '{"a":1}', '{}', '\x0aff', 'Word', '{1,2}', '(1,2)', B'101', 1, row('x', 1), 'a=>1'),
 (2, 'Banana', 20, '223e4567-e89b-12d3-a456-426614174000', false, 'O''Reilly, "x" (y)', 2.5, 'Infinity', 'ab', 'ab', 'sad', '2024-01-02 12:00+00', '2024-01-02', '2 days', '[5,9)', '10.0.0.2', '{"a":2}', '{}', '\x0b', 'other', '{2}', '(1,2)', B'111', 2, row('y', 2), 'a=>2'),
 (3, 'cherry', 30, '323e4567-e89b-12d3-a456-426614174000', null, 'null', -3, -0.5, 'b', 'b', null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)`

// filtered subscribes with each filter and returns, by filter, which rows of
// filterRows arrived as INSERT, UPDATE and DELETE.
func testRowFilters(t *testing.T, want map[string]string) {
	t.Helper()
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(types)
	db.Exec(filterTable)
	db.Exec("grant select on public.t to anon; alter publication supabase_realtime add table public.t")
	f := newFeed(t, db)
	listeners := map[string]*listener{}
	for filter := range want {
		l, _, err := f.tryListen(t, claimsOf("anon", ""), fmt.Sprintf(`{"schema":"public","table":"t","filter":%q}`, filter))
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		listeners[filter] = l
	}
	all := f.listen(t, claimsOf("anon", ""), anonT)
	db.Exec(filterRows)
	db.Exec("update public.t set id = id + 10")
	db.Exec("delete from public.t")
	db.Exec("insert into public.t (id) values (99)") // everybody is done with what came before
	all.wait(10)
	for filter, l := range listeners {
		got := map[string]string{}
		for _, e := range l.got() {
			id, ok := e.Data.Record["id"].(float64)
			if !ok {
				id = e.Data.OldRecord["id"].(float64)
			}
			if id != 99 {
				got[e.Data.Type] += fmt.Sprint(int(id) % 10)
			}
		}
		for _, typ := range []string{"INSERT", "UPDATE", "DELETE"} {
			if got[typ] != want[filter] {
				t.Errorf("%s: %s of rows %q, want %q", filter, typ, got[typ], want[filter])
			}
		}
	}
}

// spec: pgchanges:30 pgchanges:31 pgchanges:32 pgchanges:45 pgchanges:46
func TestComparisonFilters(t *testing.T) {
	testRowFilters(t, map[string]string{
		"name=eq.apple":  "1",
		"name=eq.Apple":  "",
		"name=neq.apple": "23",
		"vc=lt.abc":      "2",
		"vc=lte.abc":     "12",
		"vc=gt.ab":       "13",
		"vc=gte.abc":     "13",
		"big=eq.20":      "2",
		"big=eq. 20":     "2",
		"big=gte.20":     "23",
		"big=lt.20":      "1",
		"uid=eq.123E4567-E89B-12D3-A456-426614174000": "1",
		"uid=eq.{123e4567e89b12d3a456426614174000}":   "1",
		"uid=gt.123e4567-e89b-12d3-a456-426614174000": "23",
		"name=not.eq.apple":                           "23",
		"flag=not.eq.true":                            "2",
		"flag=eq.t":                                   "1",
		"big=gt.10,name=neq.cherry":                   "2",
		"big=gt.10,name=eq.apple":                     "",
		"name=eq.apple,big=eq.10,flag=is.true":        "1",
	})
}

// spec: pgchanges:34 pgchanges:35 pgchanges:36
func TestInFilters(t *testing.T) {
	testRowFilters(t, map[string]string{
		"big=in.(10,30)":                  "13",
		"big=in.(11)":                     "",
		"big=not.in.(10,30)":              "2",
		"big=in.()":                       "",
		"big=not.in.()":                   "123",
		"flag=not.in.()":                  "123", // of NULL too
		"big=in.(10,NULL)":                "1",
		"big=not.in.(10,NULL)":            "",
		"name=in.(apple, cherry)":         "13",
		"name=in.(apple , \"cherry\" )":   "13",
		`note=in.("O'Reilly, \"x\" (y)")`: "2",
		"uid=in.(123e4567-e89b-12d3-a456-426614174000,423e4567-e89b-12d3-a456-426614174000)": "1",
		"ci=in.(WORD,x)":                 "1",
		"num=in.(1.5,2.50)":              "12",
		"num=in.(1.5,2.50),big=gt.10":    "2",
		"big=gt.10,num=in.(1.5,2.50)":    "2",
		"big=in.(10,20),num=in.(2.5,-3)": "2",
		`b=in.(0AFF,0b)`:                 "12",
	})
}

// spec: pgchanges:42 pgchanges:43 pgchanges:44
func TestPatternAndNullFilters(t *testing.T) {
	testRowFilters(t, map[string]string{
		"name=like.%an%":           "2",
		"name=like.B_n%":           "2",
		"name=like.b%":             "",
		"name=like.*an*":           "", // not translated
		`name=like.\%`:             "",
		"name=not.like.%an%":       "13",
		"name=ilike.b%":            "2",
		"name=not.ilike.B%":        "13",
		"name=match.^[ab]":         "1",
		"name=imatch.^[ab]":        "12",
		"name=not.match.^a":        "23",
		"name=not.imatch.^B":       "13",
		"note=like.%":              "23",
		"note=not.like.x":          "23", // NULL is no, negated too
		"note=is.null":             "1",
		"note=not.is.null":         "23",
		"flag=is.true":             "1",
		"flag=is.false":            "2",
		"flag=is.unknown":          "3",
		"flag=not.is.true":         "23",
		"flag=not.is.unknown":      "12",
		"note=isdistinct.null":     "12", // the four letters
		"note=not.isdistinct.null": "3",
		"flag=isdistinct.true":     "23",
		"flag=not.isdistinct.true": "1",
		"num=isdistinct.1.5":       "23",
		"note=neq.null":            "2",
		"b=like.0a%":               "1",
		"ci=like.wor%":             "1",
		"ci=match.^wor":            "1",
		"vc=ilike.A%":              "12",
		"ch=like.a%":               "12",
	})
}

// Typed values (the table of spec 3.5).
func TestFiltersByType(t *testing.T) {
	testRowFilters(t, map[string]string{
		"num=eq.1.5":                      "1",
		"num=lt.0":                        "3",
		"f=eq.NaN":                        "1",
		"f=gt.1e300":                      "12",
		"f=eq.Infinity":                   "2",
		"vc=eq.abc":                       "1",
		"vc=eq.abcdef":                    "",
		"ch=eq.a":                         "1", // whole values, padded
		"ch=eq.ab":                        "2",
		"bits=eq.101":                     "1",
		"mood=eq.happy":                   "1",
		"mood=lt.happy":                   "2",
		"at=eq.2024-01-01T14:00:00+02:00": "1",
		"at=gt.2024-01-01T14:00:00+02:00": "2",
		"d=gte.2024-01-02":                "2",
		"iv=eq.24:00":                     "1",
		`r=eq."[1,4]"`:                    "1",
		"ip=gt.10.0.0.1":                  "2",
		`j=eq."{\"a\": 1}"`:               "1",
		"b=eq.0AFF":                       "1",
		`b=eq.\x0aff`:                     "1",
		"b=gt.0aff":                       "2",
		"ci=eq.WORD":                      "1",
		"ci=neq.word":                     "2",
		`arr=eq."{1,2}"`:                  "1",
		`arr=gt."{1,2}"`:                  "2",
		"arr=is.null":                     "3",
		"pos=gt.1":                        "2",
		"ad=eq.(x,1)":                     "1",
		"h=eq.a=>1":                       "1",
		"js=is.null":                      "3",
	})
}

// unable is the text of an exception over the filter column.op.value of table t.
func unable(filters, columns, state string) string {
	return "Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: " +
		"[event: *, schema: public, table: t, filters: [" + filters + "], select: " + columns + "]. Exception: ERROR " + state
}

// spec: pgchanges:37 pgchanges:57 pgchanges:58 pgchanges:59 pgchanges:70 pgchanges:71
func TestRefusedSubscriptions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(types)
	db.Exec(filterTable)
	db.Exec(`grant select on public.t to authenticated;
		revoke all on public.t from anon; grant select (id, name) on public.t to anon; alter publication supabase_realtime add table public.t`)
	f := newFeed(t, db)
	long := strings.Repeat("1,", 100) + "1"
	user := claimsOf("authenticated", user(1))
	for _, tt := range []struct {
		claims         sluice.Claims
		params, filter string // further members, and the filter's notation in the text
		columns, want  string
	}{
		{user, `"filter":"notacolumn=eq.1"`, `{"notacolumn", "eq", "1", false}`, "nil", "P0001 (raise_exception) invalid column for filter notacolumn"},
		{user, `"filter":"id=eq.1,id=eq.hey,name=eq.x"`, `{"id", "eq", "1", false}, {"id", "eq", "hey", false}, {"name", "eq", "x", false}`, "nil", `22P02 (invalid_text_representation) invalid input syntax for type integer: "hey"`},
		{user, `"filter":"id=isdistinct.null"`, `{"id", "isdistinct", "null", false}`, "nil", `22P02 (invalid_text_representation) invalid input syntax for type integer: "null"`},
		{user, `"filter":"id=eq.99999999999"`, `{"id", "eq", "99999999999", false}`, "nil", `22003 (numeric_value_out_of_range) value "99999999999" is out of range for type integer`},
		{user, `"filter":"d=eq.2024-13-01"`, `{"d", "eq", "2024-13-01", false}`, "nil", `22008 (datetime_field_overflow) date/time field value out of range: "2024-13-01"`},
		{user, `"filter":"d=eq.soon"`, `{"d", "eq", "soon", false}`, "nil", `22007 (invalid_datetime_format) invalid input syntax for type date: "soon"`},
		{user, `"filter":"id=in.(` + long + `)"`, `{"id", "in", "{` + long + `}", false}`, "nil", "P0001 (raise_exception) too many values for `in` filter. Maximum 100"},
		{user, `"filter":"b=in.(` + strings.ReplaceAll(long, "1", "00") + `)"`, `{"b", "in", "{` + strings.ReplaceAll(long, "1", "00") + `}", false}`, "nil", "P0001 (raise_exception) too many values for `in` filter. Maximum 100"},
		{user, `"filter":"id=in.(1,{)"`, `{"id", "in", "{1,{}", false}`, "nil", `22P02 (invalid_text_representation) malformed array literal: "{1,{}"`},
		{user, `"filter":"id=is.NULL"`, `{"id", "is", "NULL", false}`, "nil", "P0001 (raise_exception) invalid value for is filter: must be null, true, false, or unknown"},
		{user, `"filter":"id=is.true"`, `{"id", "is", "true", false}`, "nil", "P0001 (raise_exception) is true filter requires a boolean column, got integer"},
		{user, `"filter":"id=like.1"`, `{"id", "like", "1", false}`, "nil", "P0001 (raise_exception) operator like requires a text-compatible column type, got integer"},
		{user, `"filter":"uid=match.1"`, `{"uid", "match", "1", false}`, "nil", "P0001 (raise_exception) operator match requires a text-compatible column type, got uuid"},
		{user, `"filter":"ch=imatch.1"`, `{"ch", "imatch", "1", false}`, "nil", "P0001 (raise_exception) operator imatch requires a text-compatible column type, got character"},
		{user, `"filter":"b=match.1"`, `{"b", "match", "1", false}`, "nil", "P0001 (raise_exception) operator match requires a text-compatible column type, got bytea"},
		{user, `"filter":"mood=ilike.h%"`, `{"mood", "ilike", "h%", false}`, "nil", "P0001 (raise_exception) operator ilike requires a text-compatible column type, got public.mood"},
		{user, `"filter":"name=match.("`, `{"name", "match", "(", false}`, "nil", "P0001 (raise_exception) invalid regular expression for match filter: parentheses () not balanced"},
		{user, `"filter":"name=like.x\\"`, `{"name", "like", "x\\", false}`, "nil", "22025 (invalid_escape_sequence) LIKE pattern must not end with escape character"},
		{user, `"filter":"js=eq.{}"`, `{"js", "eq", "{}", false}`, "nil", "P0001 (raise_exception) operator eq requires a comparable column type, got json"},
		{user, `"filter":"p=in.()"`, `{"p", "in", "{}", false}`, "nil", "P0001 (raise_exception) operator in requires a comparable column type, got point"},
		{user, `"filter":"b=eq.xyz"`, `{"b", "eq", "xyz", false}`, "nil", `22P02 (invalid_text_representation) invalid hexadecimal data: "xyz"`},
		{user, `"select":["id","nope"]`, "", `["id", "nope"]`, "P0001 (raise_exception) invalid column for select nope"},
		{claimsOf("anon", ""), `"select":["id","big"]`, "", `["id", "big"]`, "P0001 (raise_exception) invalid column for select big"},
		{claimsOf("anon", ""), `"filter":"big=eq.1"`, `{"big", "eq", "1", false}`, "nil", "P0001 (raise_exception) invalid column for filter big"},
		{claimsOf(`no"such`, ""), `"x":1`, "", "nil", `42704 (undefined_object) role "no"such" does not exist`},
	} {
		good := `{"schema":"public","table":"t"}`
		_, _, err := f.tryListen(t, tt.claims, good, `{"schema":"public","table":"t",`+tt.params+`}`)
		want := unable(tt.filter, tt.columns, tt.want)
		if tt.claims.Role == `no"such` {
			want = unable("", "nil", tt.want)
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", tt.params, err, want)
		}
	}
	if n := f.Metrics().Subscriptions.Load(); n != 0 {
		t.Errorf("%d subscriptions are stored", n)
	}
}

func TestNotPublished(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("create table public.hidden (id int primary key); create view public.v as select 1 as id; create table public.parted (id int) partition by range (id); create table public.leaf partition of public.parted for values from (0) to (9)")
	f := newFeed(t, db)
	const text = "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: "
	check := func(when string) {
		t.Helper()
		for params, rendered := range map[string]string{
			`{"event":"INSERT","schema":"public"}`:                    "[event: INSERT, schema: public, table: *, filters: [], select: nil]",
			`{"table":"hidden"}`:                                      "[event: *, schema: public, table: hidden, filters: [], select: nil]",
			`{"table":"missing"}`:                                     "[event: *, schema: public, table: missing, filters: [], select: nil]",
			`{"table":"v"}`:                                           "[event: *, schema: public, table: v, filters: [], select: nil]",
			`{"schema":"nowhere","table":"t"}`:                        "[event: *, schema: nowhere, table: t, filters: [], select: nil]",
			`{"schema":"public","table":"hidden","filter":"id=gt.1"}`: `[event: *, schema: public, table: hidden, filters: [{"id", "gt", "1", false}], select: nil]`,
			`{"table":"hidden","select":["id"]}`:                      `[event: *, schema: public, table: hidden, filters: [], select: ["id"]]`,
			`{"table":"parted"}`:                                      "[event: *, schema: public, table: parted, filters: [], select: nil]",
		} {
			if _, _, err := f.tryListen(t, claimsOf("anon", ""), params); err == nil || err.Error() != text+rendered {
				t.Errorf("%s, %s: %v", when, params, err)
			}
		}
	}
	check("empty publication")
	db.Exec("drop publication supabase_realtime")
	check("no publication")
	db.Exec("create publication supabase_realtime; create table public.other (id int primary key); create schema o; alter table public.other set schema o; alter publication supabase_realtime add table o.other, public.leaf")
	if _, _, err := f.tryListen(t, claimsOf("anon", ""), `{"table":"leaf"}`); err != nil {
		t.Errorf("leaf: %v", err)
	}
	if _, _, err := f.tryListen(t, claimsOf("anon", ""), `{"table":"parted"}`); err == nil {
		t.Error("subscribed to a partitioned table that is published as its leaves")
	}
}

// One bad entry, and none of the channel's is active.
func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key)")
	if _, _, err := f.tryListen(t, claimsOf("anon", ""), anonT, `{"table":"missing"}`); err == nil {
		t.Fatal("subscribed")
	}
	l := f.listen(t, claimsOf("anon", ""), anonT)
	f.db.Exec("insert into public.t values (1)")
	l.wait(1)
	if n := f.Metrics().Deliveries.Load(); n != 1 {
		t.Errorf("%d deliveries", n)
	}
}

// spec: pgchanges:39 pgchanges:40 pgchanges:41
func TestFiltersOfDeletedRows(t *testing.T) {
	t.Parallel()
	f := published(t, `create table public.t (id int primary key, a text, b text);
		create table public.full (like public.t including all); alter table public.full replica identity full;
		grant select on public.full to anon; alter publication supabase_realtime add table public.full`)
	anon := claimsOf("anon", "")
	key := f.listen(t, anon, `{"schema":"public","table":"t","event":"DELETE","filter":"id=eq.2"}`)
	other := f.listen(t, anon, `{"schema":"public","table":"t","event":"DELETE","filter":"a=eq.x"}`, `{"schema":"public","table":"t","event":"DELETE","filter":"a=is.null"}`, `{"schema":"public","table":"t","event":"DELETE","filter":"a=isdistinct.y"}`)
	full := f.listen(t, anon, `{"schema":"public","table":"full","filter":"a=eq.x","select":["b"]}`)
	end := f.listen(t, anon, anonT)
	f.db.Exec("insert into public.t values (1, 'x', 'b'), (2, 'x', 'b'); insert into public.full values (1, 'x', 'b'), (2, 'y', 'b')")
	f.db.Exec("delete from public.t; delete from public.full; insert into public.t values (3)")
	wantEvents(t, key, `DELETE was {"id":2}`)
	wantEvents(t, full, `INSERT {"b":"b","id":1}`, `DELETE was {"b":"b","id":1}`)
	end.wait(5)
	if got := summary(other.got()); len(got) != 0 {
		t.Errorf("filter on a column that is not in the key: %v", got)
	}
}

// An UPDATE is looked at as the new row is.
func TestFiltersOfUpdatedRows(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, a text)")
	l := f.listen(t, claimsOf("anon", ""), `{"schema":"public","table":"t","filter":"a=eq.in"}`)
	f.db.Exec("insert into public.t values (1, 'out')")
	f.db.Exec("update public.t set a = 'in'")
	f.db.Exec("update public.t set a = 'out'")
	f.db.Exec("insert into public.t values (2, 'in')")
	wantEvents(t, l, `UPDATE {"a":"in","id":1} was {"id":1}`, `INSERT {"a":"in","id":2}`)
}

// spec: pgchanges:62 pgchanges:63 pgchanges:64 pgchanges:66 pgchanges:67
func TestSelect(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, a text, b text, c text); alter table public.t replica identity full")
	anon := claimsOf("anon", "")
	a := f.listen(t, anon, `{"table":"t","schema":"public","select":["a"]}`)
	a2 := f.listen(t, anon, `{"table":"t","schema":"public","select":["a"]}`)
	b := f.listen(t, anon, `{"table":"t","schema":"public","select":["b","id"]}`)
	both := f.listen(t, anon, `{"table":"t","schema":"public","select":["a"]}`, `{"table":"t","schema":"public"}`, `{"table":"t","schema":"public","select":["a"],"event":"INSERT"}`)
	f.db.Exec("insert into public.t values (1, 'a', 'b', 'c')")
	f.db.Exec("update public.t set a = 'A'")
	f.db.Exec("delete from public.t")
	wantEvents(t, a, `INSERT {"a":"a","id":1}`, `UPDATE {"a":"A","id":1} was {"a":"a","id":1}`, `DELETE was {"a":"A","id":1}`)
	wantEvents(t, b, `INSERT {"b":"b","id":1}`, `UPDATE {"b":"b","id":1} was {"b":"b","id":1}`, `DELETE was {"b":"b","id":1}`)
	a2.wait(3)
	for i, e := range a.got() {
		if d := cmp.Diff([]struct{ Name, Type string }{{"id", "int4"}, {"a", "text"}}, e.Data.Columns); d != "" {
			t.Errorf("columns: %s", d)
		}
		if !a.same(a2, i) {
			t.Error("two subscribers with one selection have two bodies")
		}
	}
	// One channel with two selections gets two messages, each with its ids.
	got := both.wait(6)
	if d := cmp.Diff([][]int64{{1, 3}, {2}, {1}, {2}, {1}, {2}}, [][]int64{got[0].IDs, got[1].IDs, got[2].IDs, got[3].IDs, got[4].IDs, got[5].IDs}); d != "" {
		t.Error(d)
	}
	if len(got[0].Data.Record) != 2 || len(got[1].Data.Record) != 4 {
		t.Errorf("bodies %s and %s", got[0].Raw, got[1].Raw)
	}
}

// spec: pgchanges:65
func TestSelectUnderDefaultIdentity(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, a text, b text)")
	l := f.listen(t, claimsOf("anon", ""), `{"table":"t","schema":"public","select":["a"]}`)
	f.db.Exec("insert into public.t values (1, 'a', 'b')")
	f.db.Exec("update public.t set a = 'A'")
	f.db.Exec("delete from public.t")
	wantEvents(t, l, `INSERT {"a":"a","id":1}`, `UPDATE {"a":"A","id":1} was {"id":1}`, `DELETE was {"id":1}`)
	for _, e := range l.got() {
		if e.Data.Errors != nil {
			t.Errorf("errors in %s", e.Raw)
		}
	}
}

// The elements of in are read as PostgreSQL reads them.
func TestArrayLiteralsAgreeWithPostgres(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	parts := []string{`a`, `"`, `\`, ` `, `,`, `{`, `}`, `NULL`, `"b c"`, `""`, "\t", `é`}
	n := 0
	for i := range len(parts) * len(parts) * len(parts) * len(parts) {
		in := ""
		for k := i; k > 0; k /= len(parts) {
			in += parts[k%len(parts)]
		}
		list := changes.ListOf("c=in.(" + in + ")")
		if list == nil {
			continue
		}
		var want []string
		if err := db.Admin().QueryRow(t.Context(), "select $1::text[]", "{"+in+"}").Scan(&want); err != nil {
			t.Fatalf("%q is read as %q, and PostgreSQL says %v", in, list, err)
		}
		if d := cmp.Diff(want, list); d != "" {
			t.Fatalf("%q: %s", in, d)
		}
		n++
	}
	t.Logf("%d literals", n)
}

// Closing one subscription leaves the others of the table where they are, and the
// last one leaves nothing to match.
func TestCloseOneOfMany(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key)")
	var all []*listener
	for range 5 {
		all = append(all, f.listen(t, claimsOf("anon", ""), anonT, `{"schema":"*"}`))
	}
	f.db.Exec("insert into public.t values (1)")
	for _, l := range all {
		l.wait(1)
	}
	all[1].sub.Close()
	all[4].sub.Close()
	f.db.Exec("insert into public.t values (2)")
	for i, l := range all {
		if i != 1 && i != 4 {
			l.wait(2)
		}
	}
	if n := f.Metrics().Subscriptions.Load(); n != 3 || len(all[1].got()) != 1 || len(all[4].got()) != 1 {
		t.Errorf("%d subscriptions are left", n)
	}
	for _, l := range all {
		l.sub.Close()
	}
	before := f.Metrics().Changes.Load()
	f.db.Exec("insert into public.t values (3)")
	end := f.listen(t, claimsOf("anon", ""), anonT)
	f.db.Exec("insert into public.t values (4)")
	if d := cmp.Diff([]int{4}, ids(end.wait(1))); d != "" {
		t.Error(d)
	}
	if n := f.Metrics().Changes.Load() - before; n != 1 {
		t.Errorf("%d changes were looked at", n)
	}
}
