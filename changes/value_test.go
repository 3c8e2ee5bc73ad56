package changes_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

// renderCases are values in PostgreSQL's text form and the JSON that clients
// see (spec postgres-changes 4.4).
var renderCases = []struct{ typ, text, want string }{
	{"int2", "-7", `-7`},
	{"int8", "9223372036854775807", `9223372036854775807`},
	{"numeric", "12.30", `12.30`},
	{"numeric", "123456789012345678901234567890.123456789", `123456789012345678901234567890.123456789`},
	{"numeric", "NaN", `null`},
	{"numeric", "Infinity", `null`},
	{"float8", "0.1", `0.1`},
	{"float8", "1e+300", "1" + strings.Repeat("0", 300)},
	{"float8", "1.25e+20", `125000000000000000000`},
	{"float8", "1e-07", `0.0000001`},
	{"float8", "-1.5e-07", `-0.00000015`},
	{"float8", "1.7976931348623157e+308", "17976931348623157" + strings.Repeat("0", 292)},
	{"float4", "-0", `0`},
	{"float8", "-Infinity", `null`},
	{"bool", "t", `true`},
	{"bool", "f", `false`},
	{"text", "a \"quoted\" \\ line\nend\x01é", `"a \"quoted\" \\ line\nend\u0001é"`},
	{"text", "\xff\xfe", `"` + "\ufffd\ufffd" + `"`},
	{"bpchar", "ab   ", `"ab   "`},
	{"bytea", `\xdeadbeef00`, `"deadbeef00"`},
	{"bytea", `\x`, `""`},
	{"uuid", "123e4567-e89b-12d3-a456-426614174000", `"123e4567-e89b-12d3-a456-426614174000"`},
	{"date", "0044-03-15 BC", `"0044-03-15 BC"`},
	{"timestamp", "2024-02-29 13:14:15.123456", `"2024-02-29T13:14:15.123456"`},
	{"timestamp", "infinity", `"infinity"`},
	{"timestamp", "0044-03-15 01:02:03 BC", `"0044-03-15T01:02:03 BC"`},
	{"timestamptz", "2024-02-29 07:44:15.12+00", `"2024-02-29T07:44:15.12+00:00"`},
	{"timestamptz", "0044-03-15 01:02:03+00 BC", `"0044-03-15T01:02:03+00:00 BC"`},
	{"timestamptz", "2024-02-29 07:44:15+05:30", `"2024-02-29T07:44:15+05:30"`},
	{"interval", "1 year 2 mons 3 days 04:05:06.7", `"1 year 2 mons 3 days 04:05:06.7"`},
	{"json", `{"b":1,  "a":[1], "b":2}`, `{"b":1,"a":[1],"b":2}`},
	{"jsonb", `{"a": 1.10}`, `{"a":1.10}`},
	{"domain int4", "7", `7`},
	{"domain timestamptz", "2024-01-01 00:00:00+00", `"2024-01-01T00:00:00+00:00"`},
	{"row text int4", `("12 Main ""st""",90210)`, `{"text":"12 Main \"st\"","int4":90210}`},
	{"row text int4", `(,)`, `{"text":null,"int4":null}`},
	{"row text int4", `("",)`, `{"text":"","int4":null}`},
	{"row text float8", `("a\\b",NaN)`, `{"text":"a\\b","float8":"NaN"}`},
	{"hstore", `"k"=>"v", "n"=>NULL, "q\"\\"=>"a, b=>c"`, `{"k":"v","n":null,"q\"\\":"a, b=>c"}`},
	{"hstore", ``, `{}`},
	{"array int4", `{1,2,NULL}`, `[1,2,null]`},
	{"array int4", `{}`, `[]`},
	{"array int4", `{{1,2},{3,4}}`, `[[1,2],[3,4]]`},
	{"array int4", `[0:1]={5,6}`, `[5,6]`},
	{"array numeric", `{1.10,NaN,-Infinity}`, `[1.10,"NaN","-Infinity"]`},
	{"array bytea", `{"\\x01ff"}`, `["\\x01ff"]`},
	{"array timestamptz", `{"2024-01-01 00:00:00+00"}`, `["2024-01-01T00:00:00+00:00"]`},
	{"array text", `{"NULL",NULL,"a,b","{}","q\"\\",plain}`, `["NULL",null,"a,b","{}","q\"\\","plain"]`},
	{"array jsonb", `{"{\"a\": 1}",null}`, `[{"a":1},null]`},
	{"array box", `{(1,1),(0,0);(2,2),(1,1)}`, `["(1,1),(0,0)","(2,2),(1,1)"]`},
	{"array row text int4", `{"(\"a b\",1)","(,)"}`, `[{"text":"a b","int4":1},{"text":null,"int4":null}]`},
	{"array domain int4", `{1}`, `[1]`},
	{"domain array int4", `{1}`, `[1]`},
	// The text may be of a type that the column has no more: never broken JSON.
	{"int4", "abc", `"abc"`},
	{"int4", "", `""`},
	{"int4", "1}", `"1}"`},
	{"int4", "007", `"007"`},
	{"numeric", "1.", `"1."`},
	{"float8", "1e+9999", `"1e+9999"`},
	{"float8", "1e", `"1e"`},
	{"bool", "yes", `"yes"`},
	{"jsonb", "{a", `"{a"`},
	{"array int4", "{1,2", `"{1,2"`},
	{"array int4", "1", `"1"`},
	{"array int4", strings.Repeat("{", 9), `"` + strings.Repeat("{", 9) + `"`},
	{"row text int4", "(a", `"(a"`},
	{"row text int4", "(a,1,2)", `"(a,1,2)"`},
	{"hstore", `"k"=>`, `"\"k\"=>"`},
	{"hstore", `k=>v`, `"k=>v"`},
}

func TestRender(t *testing.T) {
	for _, tt := range renderCases {
		got := string(changes.AppendJSON([]byte("x"), []byte(tt.text), changes.Type(tt.typ)))
		if got != "x"+tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.typ, tt.text, got[1:], tt.want)
		}
	}
}

func FuzzRender(f *testing.F) {
	types := []string{"int8", "float8", "bool", "text", "bytea", "timestamptz", "jsonb", "array text", "array array int4", "row text int4", "hstore", "array row text numeric", "array box"}
	for i, tt := range renderCases {
		f.Add(uint8(i), []byte(tt.text))
	}
	f.Fuzz(func(t *testing.T, typ uint8, text []byte) {
		name := types[int(typ)%len(types)]
		if got := changes.AppendJSON(nil, text, changes.Type(name)); !json.Valid(got) {
			t.Errorf("%s %q: %s is no JSON", name, text, got)
		}
	})
}

// Every row of the table in spec 4.4, through the slot. The value is an SQL
// expression of the type; a second one is the same type's NULL.
var typeCases = []struct{ typ, name, value, want string }{
	{"int2", "int2", "(-32768)", `-32768`},
	{"int4", "int4", "5", `5`},
	{"int8", "int8", "9223372036854775807", `9223372036854775807`},
	{"numeric(10,2)", "numeric", "12.3", `12.30`},
	{"numeric", "numeric", "1e20", `100000000000000000000`},
	{"numeric", "numeric", "'NaN'", `null`},
	{"numeric", "numeric", "'-Infinity'", `null`},
	{"float4", "float4", "0.1", `0.1`},
	{"float8", "float8", "1e300", "1" + strings.Repeat("0", 300)},
	{"float8", "float8", "1e-7", `0.0000001`},
	{"float8", "float8", "'Infinity'", `null`},
	{"float8", "float8", "'-0'", `0`},
	{"money", "money", "1234.56", `"$1,234.56"`},
	{"bool", "bool", "true", `true`},
	{"text", "text", "'a\"b'", `"a\"b"`},
	{"varchar(5)", "varchar", "'ab'", `"ab"`},
	{"name", "name", "'ab'", `"ab"`},
	{"extensions.citext", "citext", "'Ab'", `"Ab"`},
	{"xml", "xml", "'<a/>'", `"<a/>"`},
	{`"char"`, "char", "'x'", `"x"`},
	{"char(5)", "bpchar", "'ab'", `"ab   "`},
	{"bytea", "bytea", `'\xdeadbeef00'`, `"deadbeef00"`},
	{"uuid", "uuid", "'123E4567-e89b-12d3-a456-426614174000'", `"123e4567-e89b-12d3-a456-426614174000"`},
	{"date", "date", "'2024-02-29'", `"2024-02-29"`},
	{"date", "date", "'infinity'", `"infinity"`},
	{"time", "time", "'13:14:15.50'", `"13:14:15.5"`},
	{"timetz", "timetz", "'13:14:15.5+02'", `"13:14:15.5+02"`},
	{"timestamp", "timestamp", "'2024-02-29 13:14:15.123456'", `"2024-02-29T13:14:15.123456"`},
	{"timestamp", "timestamp", "'-infinity'", `"-infinity"`},
	{"timestamptz", "timestamptz", "'2024-02-29 13:14:15.12+05:30'", `"2024-02-29T07:44:15.12+00:00"`},
	{"interval", "interval", "'1 year 2 mons 3 days 04:05:06.7'", `"1 year 2 mons 3 days 04:05:06.7"`},
	{"json", "json", `'{"b":1,  "a":[1]}'`, `{"b":1,"a":[1]}`},
	{"jsonb", "jsonb", `'{"a":1.10}'`, `{"a":1.10}`},
	{"public.mood", "mood", "'happy'", `"happy"`},
	{`public."Quoted Enum"`, "Quoted Enum", "'ä'", `"ä"`},
	{"public.posint", "posint", "7", `7`},
	{"public.addr", "addr", `row('12 Main "st"', 90210)`, `{"street":"12 Main \"st\"","zip":90210}`},
	{"extensions.hstore", "hstore", "'k=>v, n=>NULL'", `{"k":"v","n":null}`},
	{"int4[]", "_int4", "'{1,2,NULL}'", `[1,2,null]`},
	{"int4[]", "_int4", "'{{1,2},{3,4}}'", `[[1,2],[3,4]]`},
	{"numeric[]", "_numeric", "'{1.10,NaN}'", `[1.10,"NaN"]`},
	{"bytea[]", "_bytea", `'{"\\x01ff"}'`, `["\\x01ff"]`},
	{"timestamptz[]", "_timestamptz", "'{2024-01-01 00:00:00+00}'", `["2024-01-01T00:00:00+00:00"]`},
	{"text[]", "_text", "array['a,b', null, 'NULL', '']", `["a,b",null,"NULL",""]`},
	{"public.addr[]", "_addr", "array[row('a', 1)::public.addr]", `[{"street":"a","zip":1}]`},
	{"jsonb[]", "_jsonb", `array['{"a":1}'::jsonb]`, `[{"a":1}]`},
	{"int4range", "int4range", "'[1,4]'", `"[1,5)"`},
	{"int4multirange", "int4multirange", "'{[1,4]}'", `"{[1,5)}"`},
	{"tsrange", "tsrange", "'[2024-01-01,)'", `"[\"2024-01-01 00:00:00\",)"`},
	{"inet", "inet", "'10.0.0.1/8'", `"10.0.0.1/8"`},
	{"macaddr", "macaddr", "'08:00:2b:01:02:03'", `"08:00:2b:01:02:03"`},
	{"bit(4)", "bit", "B'1010'", `"1010"`},
	{"varbit", "varbit", "B'101'", `"101"`},
	{"oid", "oid", "4294967295", `"4294967295"`},
	{"regtype", "regtype", "'integer'", `"integer"`},
	{"pg_lsn", "pg_lsn", "'16/B374D848'", `"16/B374D848"`},
	{"tsvector", "tsvector", "'a b'", `"'a' 'b'"`},
	{"point", "point", "'(1,2)'", `"(1,2)"`},
}

const types = `
create extension if not exists hstore with schema extensions;
create extension if not exists citext with schema extensions;
create type public.mood as enum ('sad', 'happy');
create type public."Quoted Enum" as enum ('ä', 'B b');
create domain public.posint as int check (value > 0);
create type public.addr as (street text, zip int);`

// spec: pgchanges:10 pgchanges:17 pgchanges:18
func TestEveryType(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(types)
	columns, values := []string{"id int primary key"}, []string{"1"}
	for i, tt := range typeCases {
		c := "c" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		columns = append(columns, c+" "+tt.typ)
		values = append(values, tt.value)
	}
	db.Exec("create table public.t (" + strings.Join(columns, ", ") + "); grant select on public.t to anon; alter publication supabase_realtime add table public.t")
	f := newFeed(t, db)
	l := f.listen(t, claimsOf("anon", ""), `{"table":"t"}`)
	db.Exec("insert into public.t values (" + strings.Join(values, ", ") + ")")
	db.Exec("insert into public.t (id) values (2)")
	got := l.wait(2)
	var rows [2]struct {
		Columns []struct{ Name, Type string }
		Record  map[string]json.RawMessage
	}
	for i := range rows {
		if err := json.Unmarshal([]byte(got[i].Raw), &rows[i]); err != nil {
			t.Fatal(err)
		}
	}
	if len(rows[0].Record) != len(columns) || len(rows[1].Record) != len(columns) {
		t.Fatalf("%d and %d of %d columns", len(rows[0].Record), len(rows[1].Record), len(columns))
	}
	names := []string{"id"}
	for i, tt := range typeCases {
		c := strings.Fields(columns[i+1])[0]
		names = append(names, c)
		if d := cmp.Diff(tt.want, string(rows[0].Record[c])); d != "" {
			t.Errorf("%s %s: %s", tt.typ, tt.value, d)
		}
		if n := string(rows[1].Record[c]); n != "null" {
			t.Errorf("%s NULL: %s", tt.typ, n)
		}
		if typ := rows[0].Columns[i+1].Type; typ != tt.name {
			t.Errorf("%s: type is called %q, want %q", tt.typ, typ, tt.name)
		}
	}
	var have []string
	for _, c := range rows[0].Columns {
		have = append(have, c.Name)
	}
	if d := cmp.Diff(names, have); d != "" {
		t.Errorf("columns: %s", d)
	}
}

// Text and JSON of every type agree with PostgreSQL's own to_jsonb, but for what
// the table of the specification says.
func TestRenderAgreesWithPostgres(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(types)
	for _, tt := range typeCases {
		switch {
		case strings.HasPrefix(tt.typ, "bytea") && tt.name == "bytea", tt.want == "null":
			continue // bare digits, and null for what is no number
		}
		var same bool
		q := "select to_jsonb(" + tt.value + "::" + tt.typ + ") = $1::jsonb"
		if err := db.Admin().QueryRow(t.Context(), q, tt.want).Scan(&same); err != nil || !same {
			t.Errorf("%s %s: %s is not what to_jsonb says (%v)", tt.typ, tt.value, tt.want, err)
		}
	}
}
