package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice/internal/pgtest"
)

func TestParseNodeRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", " ", "{", "{}", "{A", "{A :b", "{A :b }", "{A b 1}", "(", "({A)", "{A :b 1} x", ")", "}",
		"{CONST :constvalue x [ 1 ]}", "{CONST :constvalue 2 [ 1 ]}", "{CONST :constvalue 1 [ 300 ]}", "{CONST :constvalue 1 1}", "{CONST :constvalue -1 [ ]}",
		strings.Repeat("(", maxNodeDepth+2),
	} {
		if v, err := parseNode(text); err == nil {
			t.Errorf("%q is read as %v", text, v)
		}
	}
}

func TestParseNode(t *testing.T) {
	t.Parallel()
	v, err := parseNode(`{ALIAS :aliasname my\ table\(1\) :colnames ("a b" "" "q\"uo") :n <> :flag true :list (i 1 -2) :c {CONST :constvalue 4 [ -1 0 1 127 9 9 9 9 ]}}`)
	if err != nil {
		t.Fatal(err)
	}
	n := v.(*node)
	if n.tag != "ALIAS" || n.str("aliasname") != "my table(1)" || n.set("n") || !n.flag("flag") {
		t.Errorf("%+v", n)
	}
	if d := cmp.Diff([]any{"i", "1", "-2"}, n.list("list")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(datum{255, 0, 1, 127}, n.sub("c").fields["constvalue"]); d != "" {
		t.Error(d)
	}
}

// FuzzParseNode: whatever the text is, it is read or refused.
func FuzzParseNode(f *testing.F) {
	f.Add(`{OPEXPR :opno 98 :opfuncid 67 :opresulttype 16 :opretset false :opcollid 0 :inputcollid 100 :args ({VAR :varno 1 :varattno 4 :vartype 25 :vartypmod -1 :varcollid 100 :varlevelsup 0 :location 47} {CONST :consttype 25 :consttypmod -1 :constcollid 100 :constlen -1 :constbyval false :constisnull false :location 66 :constvalue 5 [ 20 0 0 0 120 ]}) :location 64}`)
	f.Add(`{SUBLINK :subLinkType 0 :testexpr <> :subselect {QUERY :commandType 1 :rtable ({RANGETBLENTRY :rtekind 0 :relid 5 :relkind r :inh true}) :jointree {FROMEXPR :fromlist ({RANGETBLREF :rtindex 1}) :quals <>} :targetList <>}}`)
	f.Add(`({CASEEXPR :casetype 16 :arg <> :args ({CASEWHEN :expr {PARAM :paramkind 0 :paramid 1 :paramtype 23} :result <>}) :defresult <>})`)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseNode(text)
		if err != nil {
			return
		}
		e, err := exprOf(v)
		if err != nil || e == nil {
			return
		}
		e.walk(func(x *expr, _ int) bool {
			if x.kind == kConst && !x.null {
				_, _ = datumText(x.typ, x.datum, nil) // refused or read
			}
			return true
		})
		_ = e.shift(1)
	})
}

// FuzzDatum: whatever the bytes are, they are read or refused.
func FuzzDatum(f *testing.F) {
	for _, typ := range constantTypes() {
		f.Add(typ, []byte{20, 0, 0, 0, 97})
	}
	f.Add(uint32(oidJSONB), []byte{196, 0, 0, 0, 1, 0, 0, 32, 1, 0, 0, 128, 32, 0, 0, 80, 97, 0, 0, 0, 4, 0, 0, 64, 8, 0, 0, 144, 1, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 48, 32, 0, 0, 0, 0, 128, 1, 0, 120})
	f.Add(uint32(1009), []byte{160, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 120, 0, 0, 0, 20, 0, 0, 0, 121, 0, 0, 0})
	f.Fuzz(func(t *testing.T, typ uint32, b []byte) {
		_, _ = datumText(typ, b, nil) // refused or read
	})
}

func constantTypes() (out []uint32) {
	for typ := range plainTypes {
		out = append(out, typ)
	}
	for typ := range arrayElements {
		out = append(out, typ)
	}
	return out
}

// What is read of a constant is what PostgreSQL wrote.
func TestConstants(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	admin := db.Pool("supabase_admin")
	db.Exec("create table public.t (id int); create type public.mood as enum ('sad', 'it''s \"ok\"')")
	read := 0
	for _, c := range []string{
		"true::bool", "false::bool", "1::int2", "'-32768'::int2", "2147483647::int4", "'-9223372036854775808'::int8", "0::int8", "4294967295::oid",
		"1.5::float4", "'-1e-20'::float8", "'NaN'::float8", "'-Infinity'::float8", "123456.789::float8",
		"0::numeric", "1.50::numeric", "'-0.00001'::numeric", "12345678901234567890.12345678901234567890::numeric", "'NaN'::numeric", "'Infinity'::numeric", "'-Infinity'::numeric", "10000::numeric", "100000000::numeric", "0.0001::numeric", "1e-300::numeric", "1e300::numeric",
		"''::text", "'a''b\\c\"d'::text", "'żółć'::text", "'abc'::varchar(3)", "'ab'::char(4)", "'name'::name", "'\\x00ff'::bytea",
		"'{\"a\":1}'::json", "'{\"a\": [1, 2.5, \"x\", null, true, {\"b\": {}}], \"z\": \"\\u0041\\n\"}'::jsonb", "'[]'::jsonb", "'{}'::jsonb", "'\"x\"'::jsonb", "'-12.30'::jsonb", "'null'::jsonb",
		"'[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40]'::jsonb",
		"'00112233-4455-6677-8899-aabbccddeeff'::uuid", "'2024-02-29'::date", "'1999-12-31'::date", "'infinity'::date", "'-infinity'::date",
		"'23:59:59.999999'::time", "'24:00'::time", "'2024-02-29 12:34:56.789'::timestamp", "'1970-01-01 00:00:00.000001'::timestamp", "'2024-02-29 12:34:56.789+02'::timestamptz", "'infinity'::timestamptz", "'0001-01-01 00:00'::timestamp",
		"'1 year 2 mons -3 days 04:05:06.7'::interval", "'-1.5 seconds'::interval", "'-100 days'::interval", "'200000000 hours'::interval",
		"'{a,\"b,c\",NULL,\"d\\\"e\\\\\",\"NULL\",\"\"}'::text[]", "'{}'::text[]", "'{1,NULL,-3}'::int4[]", "'{1,2}'::int8[]", "'{1,2}'::int2[]", "'{t,f,NULL}'::bool[]", "'{00112233-4455-6677-8899-aabbccddeeff}'::uuid[]", "'{1.5,-2}'::numeric[]", "'{a,b}'::varchar[]",
		"'sad'::public.mood", "'it''s \"ok\"'::public.mood",
	} {
		db.Exec("create policy p on public.t using (" + c + " is null)")
		var tree, want string
		if err := admin.QueryRow(t.Context(), "select polqual::text, ("+c+")::text from pg_policy where polrelid = 'public.t'::regclass").Scan(&tree, &want); err != nil {
			t.Fatal(err)
		}
		db.Exec("drop policy p on public.t")
		v, err := parseNode(tree)
		if err != nil {
			t.Errorf("%s: %v", c, err)
			continue
		}
		e, err := exprOf(v)
		if err != nil {
			t.Errorf("%s: %v", c, err)
			continue
		}
		e = e.args[0] // of IS NULL
		if e.kind != kConst {
			continue // an expression: -1 is minus one
		}
		read++
		labels := func(oid uint32) (s string, ok bool) {
			ok = admin.QueryRow(t.Context(), "select enumlabel from pg_enum where oid = $1", oid).Scan(&s) == nil
			return s, ok
		}
		got, err := datumText(e.typ, e.datum, labels)
		if err != nil {
			t.Errorf("%s: %v", c, err)
			continue
		}
		name := c[strings.LastIndex(c, "::")+2:]
		var same bool
		if err := admin.QueryRow(t.Context(), "select $1::text::"+name+"::text = $2", got, want).Scan(&same); err != nil || !same {
			t.Errorf("%s: %q, PostgreSQL %q (%v)", c, got, want, err)
		}
	}
	if read < 50 {
		t.Errorf("%d constants", read)
	}
}
