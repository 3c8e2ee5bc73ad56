package policy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

var (
	intType  = policy.ValueType{Name: "integer"}
	textType = policy.ValueType{Name: "text"}
	ciType   = policy.ValueType{Name: "extensions.citext", Operators: "extensions"}
)

func TestCheckSQL(t *testing.T) {
	t.Parallel()
	permissive := func(expr string) policy.Policy { return policy.Policy{Permissive: true, Expr: expr} }
	restrictive := func(expr string) policy.Policy { return policy.Policy{Expr: expr} }
	const n = `"sluice row number, a name that is too long to be that of any column"`
	const before = `select ` + n + ` from pg_catalog.unnest($1::"public"."messages"[]) with ordinality as "messages" ("id", "room", ` + n + `) where (`
	for _, tt := range []struct {
		name     string
		policies []policy.Policy
		which    []int
		want     string
	}{
		{"no policy", nil, nil, ""},
		{"none for the role", []policy.Policy{permissive("true")}, nil, ""},
		{"restrictive alone", []policy.Policy{restrictive("true")}, []int{0}, ""},
		{"one", []policy.Policy{permissive("(id > 0)")}, []int{0}, before + `(((id > 0)))` + `) or false`},
		{"no expression", []policy.Policy{permissive("")}, []int{0}, ""},
		{"no expression beside one", []policy.Policy{permissive(""), permissive("a"), restrictive("")}, []int{0, 1, 2}, before + `((a))` + `) or false`},
		{
			"combined",
			[]policy.Policy{permissive("a"), restrictive("b"), permissive("c"), restrictive("d"), permissive("not for this role")},
			[]int{0, 1, 2, 3},
			before + `(b) and (d) and ((a) or (c))` + `) or false`,
		},
		{
			"permissive ones as PostgreSQL evaluates them",
			[]policy.Policy{{Name: "a", Permissive: true, Expr: "1"}, {Name: "é", Permissive: true, Expr: "2"}, {Name: "Z", Permissive: true, Expr: "3"}, {Name: "m", Expr: "4"}},
			[]int{0, 1, 2, 3},
			before + `(4) and ((2) or (1) or (3))` + `) or false`,
		},
		{
			"whole row",
			[]policy.Policy{permissive("f(messages.*)")},
			[]int{0},
			`select n from pg_catalog.generate_subscripts($1::"public"."messages"[], 1) as sluice (n) where exists (select from` +
				` pg_catalog.unnest(($1::"public"."messages"[])[n:n]) as "messages" ("id", "room") where (((f(messages.*)))) or false) or false`,
		},
	} {
		table := policy.Table{Schema: "public", Name: "messages", Alias: "messages", Columns: []string{"id", "room"}, Policies: tt.policies}
		if d := cmp.Diff(tt.want, table.CheckSQL(tt.which)); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

func TestLookupSQL(t *testing.T) {
	t.Parallel()
	table := policy.Table{Schema: "s", Name: `t"; drop`, Columns: []string{"a", `b"`, "c"}, Types: []policy.ValueType{intType, textType, ciType}}
	const want = `select "b""" from "s"."t""; drop" where "a" operator("pg_catalog".=) $1::integer and "c" operator("extensions".=) $2::extensions.citext`
	if d := cmp.Diff(want, table.LookupSQL([]int{1}, []int{0, 2})); d != "" {
		t.Error(d)
	}
}

func TestCompareSQL(t *testing.T) {
	t.Parallel()
	for op, want := range map[policy.Op]string{
		policy.OpEq:         `select $1::integer operator("pg_catalog".=) $2::integer`,
		policy.OpNeq:        `select $1::integer operator("pg_catalog".<>) $2::integer`,
		policy.OpLt:         `select $1::integer operator("pg_catalog".<) $2::integer`,
		policy.OpLte:        `select $1::integer operator("pg_catalog".<=) $2::integer`,
		policy.OpGt:         `select $1::integer operator("pg_catalog".>) $2::integer`,
		policy.OpGte:        `select $1::integer operator("pg_catalog".>=) $2::integer`,
		policy.OpIn:         `select $1::integer operator("pg_catalog".=) any ($2::integer[])`,
		policy.OpLike:       `select $1::integer operator("pg_catalog".~~) $2::text`,
		policy.OpILike:      `select $1::integer operator("pg_catalog".~~*) $2::text`,
		policy.OpMatch:      `select $1::integer operator("pg_catalog".~) $2::text`,
		policy.OpIMatch:     `select $1::integer operator("pg_catalog".~*) $2::text`,
		policy.OpIsDistinct: `select not ($1::integer operator("pg_catalog".=) $2::integer)`,
	} {
		if d := cmp.Diff(want, policy.CompareSQL(op, intType)); d != "" {
			t.Errorf("%s: %s", op, d)
		}
		if got, ok := policy.ParseOp(op.String()); !ok || got != op {
			t.Errorf("%s is read as %s", op, got)
		}
	}
	for _, name := range []string{"", "EQ", "cs", "or", "not"} {
		if op, ok := policy.ParseOp(name); ok {
			t.Errorf("%q is read as %s", name, op)
		}
	}
	if got := policy.CompareSQL(policy.OpIn, ciType); got != `select $1::extensions.citext operator("extensions".=) any ($2::extensions.citext[])` {
		t.Error(got)
	}
}

// rowsLiteral makes the parameter of a check.
func rowsLiteral(rows [][][]byte) []byte {
	out := []byte{'{'}
	for i, r := range rows {
		if i > 0 {
			out = append(out, ',')
		}
		out = policy.AppendRow(out, r)
	}
	return append(out, '}')
}

// Values come back from PostgreSQL as they went in.
func TestAppendRow(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("create table public.t (a text, b text)")
	values := []string{"", "a", `"`, `\`, `""`, `\\`, `\"`, `(`, `)`, `,`, `{`, `}`, `NULL`, `null`, " ", " a ", "\n\t", "é", `a"b\c,(d){e}`, `'$1`}
	rows := [][][]byte{{nil, nil}}
	for i, v := range values {
		rows = append(rows, [][]byte{[]byte(v), []byte(values[len(values)-1-i])}, [][]byte{nil, []byte(v)})
	}
	res, err := db.Admin().Query(t.Context(), "select a, b from unnest($1::public.t[])", string(rowsLiteral(rows)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(res, func(row pgx.CollectableRow) (r [2]*string, err error) { return r, row.Scan(&r[0], &r[1]) })
	if err != nil || len(got) != len(rows) {
		t.Fatalf("%d rows (%v)", len(got), err)
	}
	for i, r := range rows {
		for c, v := range r {
			if (v == nil) != (got[i][c] == nil) || v != nil && string(v) != *got[i][c] {
				t.Errorf("row %d: %q became %v", i, v, got[i][c])
			}
		}
	}
}

func FuzzAppendRow(f *testing.F) {
	f.Add([]byte(`a"b\`), []byte(`(,)`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		got := string(policy.AppendRow(nil, [][]byte{a, nil, b}))
		// Undone twice, as an element of an array and as a row.
		inner, ok := unquote(got)
		if !ok || !strings.HasPrefix(inner, "(") || !strings.HasSuffix(inner, ")") {
			t.Fatalf("%q", got)
		}
		first, rest, ok := cutQuoted(inner[1:])
		if !ok || first != string(a) || !strings.HasPrefix(rest, ",,") {
			t.Fatalf("%q: first is %q", got, first)
		}
		second, rest, ok := cutQuoted(rest[2:])
		if !ok || second != string(b) || rest != ")" {
			t.Fatalf("%q: last is %q", got, second)
		}
	})
}

func unquote(s string) (string, bool) {
	v, rest, ok := cutQuoted(s)
	return v, ok && rest == ""
}

// cutQuoted reads "…" with backslashes and, in rows, doubled quotes.
func cutQuoted(s string) (v, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", s, s != "" && s[0] == ',' // an empty slice is NULL
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '"' && i+1 < len(s) && s[i+1] == '"':
			i++
			b.WriteByte('"')
		case s[i] == '"':
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// define reads a table's definition as package changes does.
func define(t *testing.T, db *pgtest.DB, schema, name string) *policy.Table {
	t.Helper()
	table := &policy.Table{Schema: schema, Name: name, Alias: name}
	err := pgx.BeginFunc(t.Context(), db.Admin(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "set local search_path = public, extensions"); err != nil {
			return err
		}
		var policies []byte
		err := tx.QueryRow(t.Context(), `select array(select attname::text from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped order by attnum),
			coalesce((select json_agg(json_build_object('name', polname, 'permissive', polpermissive, 'expr', coalesce(pg_get_expr(polqual, polrelid), '')) order by polname)
			  from pg_policy where polrelid = c.oid and polcmd in ('r', '*')), '[]')
			from pg_class c join pg_namespace n on n.oid = relnamespace where nspname = $1 and relname = $2`, schema, name).Scan(&table.Columns, &policies)
		if err != nil {
			return err
		}
		return json.Unmarshal(policies, &table.Policies)
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func claims(role string, members map[string]any) sluice.Claims {
	m := map[string]any{"role": role}
	for k, v := range members {
		m[k] = v
	}
	c := sluice.Claims{Role: role}
	c.Subject, _ = m["sub"].(string)
	c.JSON, _ = json.Marshal(m)
	return c
}

const uid1, uid2 = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"

// agree compares what CheckSQL says about every row of a table, under all its
// policies, with what a select as the same user returns. An error in one must be
// an error in the other, row by row. It returns how many rows were seen.
func agree(t *testing.T, db *pgtest.DB, table *policy.Table, key string, who sluice.Claims) (seen []string) {
	t.Helper()
	users := db.Pool("authenticator")
	from := pgx.Identifier{table.Schema, table.Name}.Sanitize()
	var list []string
	for _, c := range table.Columns {
		list = append(list, pgx.Identifier{c}.Sanitize()+"::text")
	}
	k := pgx.Identifier{key}.Sanitize()
	rows, err := db.Admin().Query(t.Context(), "select "+k+"::text, array["+strings.Join(list, ", ")+"] from "+from+" order by "+k)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		key    string
		values []*string
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (x row, err error) { return x, r.Scan(&x.key, &x.values) })
	if err != nil {
		t.Fatal(err)
	}
	which := make([]int, len(table.Policies))
	for i := range which {
		which[i] = i
	}
	sql := table.CheckSQL(which)
	for _, r := range all {
		values := make([][]byte, len(r.values))
		for i, v := range r.values {
			if v != nil {
				values[i] = append([]byte{}, *v...)
			}
		}
		res, err := users.AsEach(t.Context(), sql, []pg.EachCheck{{Claims: who, Args: [][]byte{rowsLiteral([][][]byte{values})}}},
			pg.AsOptions{Settings: []pg.Setting{{Name: "search_path", Value: "public, extensions"}}})
		if err != nil {
			t.Fatal(err)
		}
		var n int
		want := users.As(t.Context(), who, pg.AsOptions{Rollback: true, Settings: []pg.Setting{{Name: "search_path", Value: "public, extensions"}}}, func(ctx context.Context, tx pg.Tx) error {
			return tx.QueryRow(ctx, "select count(*) from "+from+" where "+k+" = $1", r.key).Scan(&n)
		})
		got := res[0].Err == nil && len(res[0].Rows) == 1
		if got != (want == nil && n == 1) {
			t.Errorf("row %s for %s: check says %v (%v), select finds %d (%v)", r.key, who.JSON, got, res[0].Err, n, want)
		}
		if got {
			seen = append(seen, r.key)
		}
	}
	return seen
}

// The check agrees with PostgreSQL's own select, policy by policy.
func TestAgreesWithSelect(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(fmt.Sprintf(`
		create table public.members (room int, user_id uuid, primary key (room, user_id));
		alter table public.members enable row level security;
		create policy own on public.members using (user_id = auth.uid());
		create table public.t (id int primary key, room int, owner uuid, tags text[], doc jsonb, n int);
		insert into public.members values (1, '%[1]s'), (2, '%[2]s');
		insert into public.t values (1, 1, '%[1]s', '{a,b}', '{"k":"v"}', 1), (2, 2, '%[2]s', '{b}', null, 0), (3, null, null, null, '{"k":null}', null), (4, 1, '%[2]s', '{}', '{}', -1);
		grant select on public.t, public.members to authenticated; alter table public.t enable row level security;
		create function public.opaque(n int) returns boolean language plpgsql as $$ begin return n > 0; end $$;
		create function public.whole(r public.t) returns boolean language sql as $$ select (r).n = 1 $$;
		create function public.definer(r int) returns boolean language sql security definer set search_path = '' as $$ select exists (select from public.members m where m.room = r) $$;
		create view public.v with (security_invoker = on) as select * from public.members; grant select on public.v to authenticated;
		create table public.closed (id int); create type public.mood as enum ('sad', 'happy')`, uid1, uid2))
	for _, tt := range []struct{ name, policies, want string }{
		{"true", "create policy p on public.t using (true)", "1 2 3 4"},
		{"no expression", "create policy p on public.t for select", ""},
		{"check alone", "create policy p on public.t with check (true)", ""},
		{"check alone, beside another", "create policy p on public.t with check (true); create policy a on public.t using (n = 1)", "1"},
		{"restrictive without expression", "create policy p on public.t using (n = 1); create policy a on public.t as restrictive for select", "1"},
		{"all true", "create policy p on public.t using (true); create policy a on public.t using (true); create policy b on public.t as restrictive using (true)", "1 2 3 4"},
		{"restrictive true alone", "create policy p on public.t as restrictive using (true)", ""},
		{"one is false", "create policy p on public.t using (true); create policy b on public.t as restrictive using (false)", ""},
		{"null", "create policy p on public.t using (null)", ""},
		{"owner", "create policy p on public.t using (owner = auth.uid())", "1"},
		{"owner, wrapped", "create policy p on public.t using ((select auth.uid()) = owner)", "1"},
		{"membership", "create policy p on public.t using (exists (select from public.members where members.room = t.room and user_id = auth.uid()))", "1 4"},
		{"membership of others is hidden", "create policy p on public.t using (room in (select room from public.members))", "1 4"},
		{"security definer", "create policy p on public.t using (public.definer(room))", "1 2 4"},
		{"view", "create policy p on public.t using (room = any (array(select v.room from public.v)))", "1 4"},
		{"role", "create policy p on public.t using (auth.role() = 'authenticated' and current_user = 'authenticated')", "1 2 3 4"},
		{"claim", "create policy p on public.t using (auth.jwt() ->> 'tag' = any (tags))", "1 2"},
		{"setting", "create policy p on public.t using (current_setting('request.jwt.claims', true)::json ->> 'sub' = owner::text)", "1"},
		{"legacy setting", "create policy p on public.t using (current_setting('request.jwt.claim.sub', true) = owner::text)", "1"},
		{"jsonb", "create policy p on public.t using (doc ? 'k' and doc ->> 'k' is not null)", "1"},
		{"restrictive", "create policy a on public.t using (true); create policy b on public.t as restrictive using (n >= 0); create policy c on public.t as restrictive using (room = 1)", "1"},
		{"permissive", "create policy a on public.t using (n = 1); create policy b on public.t for select using (room = 2)", "1 2"},
		{"other commands", "create policy a on public.t for insert with check (true); create policy b on public.t for update using (true); create policy c on public.t for delete using (true)", ""},
		{"raises", "create policy p on public.t using (1 / n > 0)", "1"},
		{"opaque", "create policy p on public.t using (public.opaque(n))", "1"},
		{"whole row", "create policy p on public.t using (public.whole(t))", "1"},
		{"whole row is null", "create policy p on public.t using (t is not null)", "1 4"},
		{"volatile", "create policy p on public.t using (random() >= 0 and clock_timestamp() > now() - interval '1 day')", "1 2 3 4"},
		{"operator that came later", "create policy p on public.t using ((case n when 1 then 'happy' else 'sad' end)::public.mood = 'happy'::public.mood); " +
			"create or replace function public.never(public.mood, public.mood) returns boolean language sql as 'select false'; " +
			"create operator public.= (leftarg = public.mood, rightarg = public.mood, function = public.never)", "1"},
		{"itself", "create policy p on public.t using (exists (select from public.t x where x.id = t.id))", ""},
		{"no privilege", "create policy p on public.t using (exists (select from public.closed))", ""},
		{"bad claim", "create policy p on public.t using (((auth.jwt() ->> 'tag')::int) > 0)", ""},
	} {
		db.Exec(tt.policies)
		seen := agree(t, db, define(t, db, "public", "t"), "id", claims("authenticated", map[string]any{"sub": uid1, "tag": "b"}))
		if got := strings.Join(seen, " "); got != tt.want {
			t.Errorf("%s: rows %q, want %q", tt.name, got, tt.want)
		}
		for _, p := range []string{"p", "a", "b", "c"} {
			db.Exec("drop policy if exists " + p + " on public.t")
		}
	}
}

// Names that try to get out of their quotes, or to be taken for something else.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	names := []string{`t"; drop table public.victim; --`, `a"b`, "select", "$1", "n", "sluice", "ordinality", "Ünïcode", `back\slash`, "new\nline", strings.Repeat("x", 63)}
	db.Exec("create table public.victim (id int)")
	for _, name := range names {
		id := pgx.Identifier{name}.Sanitize()
		db.Exec("create schema if not exists " + id)
		var columns []string
		for _, c := range names {
			columns = append(columns, pgx.Identifier{c}.Sanitize()+" text")
		}
		full := id + "." + id
		db.Exec("create table " + full + " (" + strings.Join(columns, ", ") + ", dropped int, id int primary key)")
		db.Exec("alter table " + full + " drop column dropped")
		db.Exec("create function public.whole(r " + full + ") returns boolean language sql as $$ select (r).id > 1 $$")
		db.Exec("create policy " + id + " on " + full + " using (" + id + " = 'yes' and public.whole(" + id + ".*) or " + id + "." + id + " = 'plain')")
		db.Exec("alter table " + full + " enable row level security; grant usage on schema " + id + " to authenticated; grant select on " + full + " to authenticated")
		for i, v := range []string{"yes", "yes", "no", "plain"} {
			db.Exec("insert into "+full+" (id, "+id+") values ($1, $2)", i+1, v)
		}
		table := define(t, db, name, name)
		seen := agree(t, db, table, "id", claims("authenticated", nil))
		if d := cmp.Diff([]string{"2", "4"}, seen); d != "" {
			t.Errorf("%q: %s", name, d)
		}
		for range table.Columns {
			table.Types = append(table.Types, textType)
		}
		table.Types[len(table.Types)-1] = intType
		var got *string
		want := slices.Index(table.Columns, name)
		if err := db.Admin().QueryRow(t.Context(), table.LookupSQL([]int{want}, []int{len(table.Columns) - 1}), "4").Scan(&got); err != nil || got == nil || *got != "plain" {
			t.Errorf("%q: looked up %v (%v)", name, got, err)
		}
	}
	db.Exec("select from public.victim")
}

// Nothing that a user defines runs while a filter is compared: not a domain's
// constraint, not an operator, not a cast.
func TestCompareRunsNothingOfUsers(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`
		create function public.boom(text) returns boolean language plpgsql as $$ begin raise exception 'ran as %', current_user; end $$;
		create type public.pair as (a text, b int);
		create function public.pairs(public.pair, public.pair) returns boolean language sql as $$ select public.boom('') $$;
		create operator public.= (leftarg = public.pair, rightarg = public.pair, function = public.pairs);
		create function public.cast_pair(text) returns public.pair language sql as $$ select null::public.pair where public.boom('') $$;
		create cast (text as public.pair) with function public.cast_pair(text);
		create type public.mood as enum ('sad', 'happy');
		create function public.moods(public.mood, public.mood) returns boolean language sql as $$ select public.boom('') $$;
		create operator public.= (leftarg = public.mood, rightarg = public.mood, function = public.moods);`)
	for typ, values := range map[string][2]string{"public.pair": {"(a,1)", "(b,1)"}, "public.mood": {"sad", "happy"}, "integer": {"1", "2"}} {
		for op, want := range map[policy.Op]bool{policy.OpEq: false, policy.OpNeq: true, policy.OpIsDistinct: true, policy.OpLt: values[0] < values[1] || typ == "public.mood"} {
			var got bool
			if err := db.Admin().QueryRow(t.Context(), policy.CompareSQL(op, policy.ValueType{Name: typ}), values[0], values[1]).Scan(&got); err != nil || got != want {
				t.Errorf("%s %s: %v (%v)", typ, op, got, err)
			}
		}
		var n int
		if err := db.Admin().QueryRow(t.Context(), policy.CastSQL(policy.OpEq, policy.ValueType{Name: typ}), values[0]).Scan(&n); err != nil || n != 1 {
			t.Errorf("%s: cast %d (%v)", typ, n, err)
		}
	}
}

func TestCastSQL(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, tt := range []struct {
		op    policy.Op
		value string
		n     int
		state string
	}{
		{policy.OpEq, "5", 1, ""},
		{policy.OpEq, "hey", 0, "22P02"},
		{policy.OpIn, "{1,NULL,3}", 3, ""},
		{policy.OpIn, "{}", 0, ""},
		{policy.OpIn, "{1", 0, "22P02"},
	} {
		var n int
		err := db.Admin().QueryRow(t.Context(), policy.CastSQL(tt.op, intType), tt.value).Scan(&n)
		if n != tt.n || pg.SQLState(err) != tt.state {
			t.Errorf("%s %s: %d (%v)", tt.op, tt.value, n, err)
		}
	}
	for re, state := range map[string]string{"^a.*$": "", "(": "2201B"} {
		if _, err := db.Admin().Exec(t.Context(), policy.RegexpSQL(), re); pg.SQLState(err) != state {
			t.Errorf("%s: %v", re, err)
		}
	}
}
