package policytest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// strangerRole may not use the schemas auth, extensions and hidden.
const strangerRole = "pt_stranger"

// readers are the roles that grants are about.
var readers = []string{"anon", "authenticated", "service_role", "pt_base", "pt_member", "pt_noinherit", "pt_bypass", "pt_owner", strangerRole, `"PT Odd"`}

// gen makes one world. All that is random comes from its source.
type gen struct {
	*rand.Rand
	w      *World
	citext bool
	common bool // the set of policies that is made

	cols   map[string]string // meaning → quoted name, of the protected table
	extras []extra
	team   valueType // type of team ids
	// quoted and qualified names
	members, teams, profiles, closed string
	fns                              string // schema of functions
	ref                              string // how a policy names the table: the name without schema
}

// extra is a column of no particular meaning.
type extra struct {
	name string
	typ  valueType
}

// valueType is a column type with literals of it, some of them nasty.
type valueType struct {
	name     string
	literals []string // without quotes; they are cast to name
	ordered  bool
	text     bool // has LIKE
}

func (v valueType) literal(g *gen) string {
	return sqlString(v.literals[g.IntN(len(v.literals))]) + "::" + v.name
}

func sqlString(s string) string {
	if strings.Contains(s, `\`) {
		return " E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

var uids = func() (out []string) {
	for i := range 8 {
		out = append(out, fmt.Sprintf("%08x-0000-4000-8000-00000000000a", i+1))
	}
	return
}()

var texts = []string{
	"", "a", "A", "admin", "b", `q"uote`, `it's`, `back\slash`, "{brace}", "(a,b)", ",", "NULL", "null", " a ", "a  ", "é", "日本", "😀", "new\nline", "12", "1.0",
	"true", "2024-02-29", "%", "a_b", "a@example.com", "B@Example.com", uids[0], "1,2", "{1,2}", "ß", "i̇",
}

var valueTypes = []valueType{
	{"boolean", []string{"true", "false", "t"}, true, false},
	{"smallint", []string{"0", "1", "-1", "32767", "-32768", "7"}, true, false},
	{"integer", []string{"0", "1", "2", "-1", "2147483647", "-2147483648"}, true, false},
	{"bigint", []string{"0", "1", "2", "9007199254740993", "9223372036854775807", "-9223372036854775808"}, true, false},
	{"numeric", []string{"0", "1", "1.0", "1.10", "NaN", "Infinity", "-Infinity", "123456789012345678901234567890.123", "-0.5", "1e3"}, true, false},
	{"numeric(6,2)", []string{"0", "1.00", "1.005", "9999.99", "NaN"}, true, false},
	{"double precision", []string{"0", "-0", "1", "0.1", "NaN", "Infinity", "-Infinity", "1e300", "5e-324"}, true, false},
	{"real", []string{"0", "0.1", "NaN", "16777217", "Infinity"}, true, false},
	{"text", texts, true, true},
	{"varchar(12)", []string{"", "a", "A", "a  ", "admin", "é", `q"u`, "12"}, true, true},
	{"varchar", texts, true, true},
	{"char(4)", []string{"", "a", "a ", "ab", "abcd", "A", " a"}, true, true},
	{"uuid", uids, true, false},
	{"date", []string{"2024-02-29", "1999-12-31", "infinity", "-infinity", "0044-03-15 BC", "2999-01-01"}, true, false},
	{"timestamp", []string{"2024-02-29 12:00:00", "1999-12-31 23:59:59.999999", "infinity", "-infinity", "2999-01-01"}, true, false},
	{"timestamptz", []string{"2024-02-29 12:00:00+00", "2024-02-29 14:00:00+02", "infinity", "-infinity", "2999-01-01 00:00:00-05", "1900-01-01"}, true, false},
	{"interval", []string{"1 day", "24:00:00", "1 mon", "30 days", "-1 year", "00:00:00.000001"}, true, false},
	{"jsonb", []string{`{}`, `[]`, `null`, `1.0`, `1`, `"a"`, `{"a":1,"b":[1,"x",null]}`, `["admin","b"]`, `{"k":{"n":null}}`, `1e3`, `"q\"uote"`, `true`}, true, false},
	{"text[]", []string{"{}", "{a,b}", "{NULL,a}", `{"q\"uote","c,d"}`, `{"",admin}`, "{{a,b},{c,d}}", `{NULL}`}, true, false},
	{"uuid[]", []string{"{}", "{" + uids[0] + "," + uids[1] + "}", "{NULL}", "{" + uids[2] + "}"}, true, false},
	{"integer[]", []string{"{}", "{1,2}", "{NULL,1}", "{3}", "[0:1]={1,2}"}, true, false},
	{"app.mood", []string{"sad", "ok", "it's", "Happy Day"}, true, false},
	{"app.short", []string{"", "a", "admin", "é"}, true, true},
	{"app.positive", []string{"1", "2", "2147483647"}, true, false},
	{"bytea", []string{`\x`, `\x00ff`, `\x61`, `\xdeadbeef`}, true, false},
	{"inet", []string{"10.0.0.1", "10.0.0.0/8", "::1", "192.168.1.5/24"}, true, false},
	{"time", []string{"00:00", "24:00:00", "12:34:56.789"}, true, false},
	{"int4range", []string{"[1,5)", "empty", "(,3]", "[2,2]"}, true, false},
	{"extensions.citext", []string{"", "a", "A", "Admin", "ADMIN", "é", "É"}, true, true},
}

func typeNamed(name string) valueType {
	for _, v := range valueTypes {
		if v.name == name {
			return v
		}
	}
	panic("no type " + name)
}

func pick[T any](g *gen, from ...T) T { return from[g.IntN(len(from))] }

// chance is true in one of n cases.
func (g *gen) chance(n int) bool { return g.IntN(n) == 0 }

// Generate returns the world of a seed, without policies.
func (e *Env) generate(seed uint64, rows, identities int) *gen {
	g := &gen{Rand: rand.New(rand.NewPCG(seed, 1)), w: &World{Seed: seed}, citext: e.citext, cols: map[string]string{}}
	g.types()
	g.names()
	g.table()
	g.sideTables()
	g.functions()
	g.grants()
	for i := range rows {
		g.w.Rows = append(g.w.Rows, g.row(i+1))
	}
	for i := range identities {
		g.w.Identities = append(g.w.Identities, g.identity(i))
	}
	return g
}

func (g *gen) setup(format string, args ...any) {
	g.w.Setup = append(g.w.Setup, fmt.Sprintf(format, args...))
}

func (g *gen) types() {
	g.setup(`create type app.mood as enum ('sad', 'ok', 'it''s', 'Happy Day')`)
	g.setup(`create domain app.short as text check (length(value) < 12)`)
	g.setup(`create domain app.positive as integer check (value > 0)`)
	g.team = typeNamed(pick(g, "integer", "bigint", "text", "uuid"))
	switch g.team.name {
	case "integer", "bigint":
		g.team.literals = []string{"1", "2", "3", "4"}
	case "text":
		g.team.literals = []string{"1", "2", "3", "red", `q"t`, ""}
	}
}

// odd sometimes makes an awkward name of a plain one.
func (g *gen) odd(name string) string {
	if !g.chance(6) {
		return name
	}
	return pick(g, strings.ToUpper(name), name+` x`, name+`"q`, "ü"+name, name+`\`, name+"$1") // names stay apart
}

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

// plain leaves names without quotes that need none, as people write them.
func plain(name string) string {
	for i, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return ident(name)
		}
	}
	return name
}

func (g *gen) names() {
	for _, c := range []string{"user_id", "other_id", "org_id", "team_id", "is_public", "email", "n", "label", "created_at"} {
		g.cols[c] = plain(g.odd(c))
	}
	g.fns = pick(g, "public", "app", `"Odd Schema"`)
	schema := func() string { return pick(g, "public", "public", "app", `"Odd Schema"`) }
	name := pick(g, "t", "messages", "docs", "Odd Table", `t"q`, "select", "members_view", "n")
	g.ref = plain(name)
	if name == "select" {
		g.ref = `"select"`
	}
	g.w.Table = schema() + "." + g.ref
	g.w.Key = pick(g, "row_number_of_test", `"Row Number"`)
	side := schema()
	g.members, g.teams, g.profiles, g.closed = side+".members", side+".teams", side+".profiles", side+".closed"
}

// table makes the protected table.
func (g *gen) table() {
	add := func(name, typ string) { g.w.Columns = append(g.w.Columns, Column{Name: name, Type: typ}) }
	add(g.w.Key, "integer primary key")
	add(g.cols["user_id"], "uuid")
	add(g.cols["other_id"], "uuid")
	add(g.cols["org_id"], "uuid")
	if g.chance(8) {
		g.w.Leaf = "app.leaf"
	}
	dropped := g.w.Leaf == "" && g.chance(4)
	if dropped {
		g.w.Columns = append(g.w.Columns, Column{"gone", "text default 'x'", true})
	}
	add(g.cols["team_id"], g.team.name)
	add(g.cols["is_public"], "boolean")
	add(g.cols["email"], "text")
	add(g.cols["n"], "integer")
	add(g.cols["label"], "text")
	add(g.cols["created_at"], "timestamptz")
	for i := range 2 + g.IntN(4) {
		t := valueTypes[g.IntN(len(valueTypes))]
		if t.name == "extensions.citext" && !g.citext {
			t = typeNamed("text")
		}
		x := extra{plain(g.odd(fmt.Sprintf("x%d", i))), t}
		g.extras = append(g.extras, x)
		add(x.name, t.name)
	}
	if g.w.Leaf == "" && g.chance(4) {
		g.w.Columns = append(g.w.Columns, Column{"twice", "integer generated always as (" + g.cols["n"] + "::bigint * 2 % 1000) stored", true})
	}
	g.w.Setup = append(g.w.Setup, tableHere)
	if g.w.Leaf != "" {
		g.w.Setup = append(g.w.Setup, leafHere)
	}
	if dropped {
		g.setup("alter table %s drop column gone", g.w.Table)
	}
	g.setup("alter table %s enable row level security", g.w.Table)
	if g.chance(6) {
		owner := pick(g, "authenticated", "pt_owner", "pt_base")
		g.setup("alter table %s owner to %s", g.w.Table, owner)
		if g.w.Leaf != "" {
			g.setup("alter table %s owner to %s", g.w.Leaf, owner)
		}
	}
	if g.chance(4) {
		g.setup("create index on %s (%s)", g.w.Table, pick(g, g.cols["user_id"], g.cols["team_id"], g.cols["org_id"]))
	}
	if g.chance(4) {
		g.setup("alter table %s force row level security", g.w.Table)
	}
}

// null makes one in n values NULL.
func (g *gen) null(n int, v string) string {
	if g.chance(n) {
		return "null"
	}
	return v
}

func (g *gen) uid() string { return sqlString(uids[g.IntN(len(uids))]) }

// org is one of three.
func (g *gen) org() string { return sqlString(uids[g.IntN(3)]) }

func (g *gen) row(key int) []string {
	v := []string{
		fmt.Sprint(key), g.null(6, g.uid()), g.null(4, g.uid()), g.null(5, g.org()), g.null(6, g.team.literal(g)),
		pick(g, "true", "false", "false", "null"), g.null(6, sqlString(pick(g, "a@example.com", "b@example.com", "A@Example.com", ""))),
		g.null(6, fmt.Sprint(g.IntN(6)-1)), g.null(6, sqlString(texts[g.IntN(len(texts))])),
		g.null(8, pick(g, "now()", "now() - interval '10 days'", "now() + interval '10 days'", "'infinity'", "'2024-01-01'")),
	}
	for _, x := range g.extras {
		v = append(v, g.null(6, x.typ.literal(g)))
	}
	return v
}

// sideTables makes what sub-selects read.
func (g *gen) sideTables() {
	g.setup("create table %s (user_id uuid, team_id %s, role text, active boolean, org_id uuid)", g.members, g.team.name)
	g.setup("create table %s (id %s, org_id uuid, owner_id uuid, open boolean)", g.teams, g.team.name)
	g.setup("create table %s (id uuid, email text, is_admin boolean, level integer, org_id uuid)", g.profiles)
	g.setup("create table %s (id integer)", g.closed)
	values := func(table string, n int, row func() string) {
		var rows []string
		for range n {
			rows = append(rows, "("+row()+")")
		}
		g.setup("insert into %s values %s", table, strings.Join(rows, ", "))
	}
	values(g.members, 4+g.IntN(14), func() string {
		return strings.Join([]string{g.null(12, g.uid()), g.null(12, g.team.literal(g)), g.null(6, sqlString(pick(g, "admin", "member", "owner"))), pick(g, "true", "true", "false", "null"), g.null(6, g.org())}, ", ")
	})
	values(g.teams, 2+g.IntN(5), func() string {
		return strings.Join([]string{g.null(10, g.team.literal(g)), g.null(6, g.org()), g.null(6, g.uid()), pick(g, "true", "false", "null")}, ", ")
	})
	n := 0
	values(g.profiles, len(uids)-1, func() string {
		n++
		return strings.Join([]string{sqlString(uids[n-1]), sqlString(pick(g, "a@example.com", "b@example.com", "c@example.com")), pick(g, "true", "false", "null"), fmt.Sprint(g.IntN(4)), g.null(6, g.org())}, ", ")
	})
	if g.chance(2) {
		g.setup("create index on %s (%s)", g.members, pick(g, "user_id", "team_id", "user_id, team_id"))
		g.setup("create index on %s (id)", g.profiles)
	}
	if g.chance(3) {
		g.setup("analyze %s, %s, %s", g.members, g.teams, g.profiles)
	}
	g.guard(g.members, "user_id", "active")
	g.guard(g.teams, "owner_id", "open")
	g.guard(g.profiles, "id", "is_admin")
	for _, t := range []string{g.members, g.teams, g.profiles} {
		if g.chance(6) {
			g.setup("alter table %s owner to %s", t, pick(g, "authenticated", "pt_owner", "pt_base", "anon"))
		}
	}
}

// guard gives a table of sub-selects row level security of its own, sometimes.
func (g *gen) guard(table, owner, flag string) {
	if g.chance(2) {
		return
	}
	g.setup("alter table %s enable row level security", table)
	if g.chance(3) {
		g.setup("alter table %s force row level security", table)
	}
	for i := range g.IntN(4) {
		as, to := "permissive", pick(g, "public", "public", "authenticated", "anon, pt_base")
		if g.chance(4) {
			as = "restrictive"
		}
		g.setup("create policy p%d on %s as %s for %s to %s using (%s)", i, table, as, pick(g, "select", "all", "select", "update"), to, pick(g,
			"true", owner+" = auth.uid()", "(select auth.uid()) = "+owner, flag, "coalesce("+flag+", true)", "auth.role() = 'authenticated'",
			"current_user <> 'anon'", "org_id = (auth.jwt() -> 'app_metadata' ->> 'org_id')::uuid", owner+" is not null"))
	}
}

// functions makes those that policies call.
func (g *gen) functions() {
	member := func(arg string) string {
		return "select exists (select from " + g.members + " m where m.team_id = " + arg + " and m.user_id = auth.uid())"
	}
	fn := func(sig, returns, how, body string) {
		g.setup("create function %s.%s returns %s %s as $f$ %s $f$", g.fns, sig, returns, how, body)
	}
	team := g.team.name
	fn("is_member(tid "+team+")", "boolean", "language sql stable security definer set search_path = ''", member("tid"))
	fn("is_member_open(tid "+team+")", "boolean", "language sql stable security definer", member("tid"))
	fn("is_member_invoker(tid "+team+")", "boolean", "language sql stable", member("tid"))
	fn("my_teams()", "setof "+team, "language sql stable security definer set search_path = ''",
		"select m.team_id from "+g.members+" m where m.user_id = auth.uid()")
	fn("has_team(team_id "+team+")", "boolean", "language sql stable", "select exists (select from "+g.members+" m where m.team_id = has_team.team_id)")
	fn("has_team_column(team_id "+team+")", "boolean", "language sql stable", "select exists (select from "+g.members+" m where m.user_id = auth.uid() and m.team_id = team_id)")
	fn("knows(user_id uuid)", "boolean", "language plpgsql stable", "begin return exists (select from "+g.profiles+" p where p.id = knows.user_id); end")
	fn("vol(n integer)", "boolean", "language plpgsql volatile", "begin return n > 0; end")
	fn("raises(n integer)", "boolean", "language plpgsql stable", "begin if n = 0 then raise exception 'no'; end if; return n > 1; end")
	fn("strict_sum(a integer, b integer)", "integer", "language sql immutable strict", "select coalesce(a, 5) + coalesce(b, 5)")
	fn("strict_true(a text)", "boolean", "language sql stable strict", "select true")
	fn("org()", "uuid", "language sql stable", "select (auth.jwt() -> 'app_metadata' ->> 'org_id')::uuid")
	fn("is_admin()", "boolean", "language sql stable security definer set search_path = ''",
		"select coalesce((select p.is_admin from "+g.profiles+" p where p.id = auth.uid()), false)")
	fn("authorize(wanted text)", "boolean", "language plpgsql stable security definer set search_path = ''",
		"declare k integer; begin select count(*) into k from "+g.members+" m where m.role = wanted and m.user_id = (auth.jwt() ->> 'sub')::uuid; return k > 0; end")
	fn("only_some(n integer)", "boolean", "language sql stable", "select n >= 0")
	g.setup("revoke execute on function %s.only_some(integer) from public, anon", g.fns)
	g.setup("grant execute on function %s.only_some(integer) to authenticated", g.fns)
	fn("whole(r "+g.w.Table+")", "boolean", "language sql stable", "select (r)."+g.cols["n"]+" > 0")
	g.moreFunctions()
	g.setup("create function hidden.secret(n integer) returns boolean language sql stable as $f$ select n > 1 $f$")
	if g.chance(3) {
		g.setup("alter function %s.is_member(%s) owner to %s", g.fns, team, pick(g, "pt_owner", "authenticated", "anon"))
	}
	if g.chance(4) {
		g.setup("alter function %s.my_teams() owner to %s", g.fns, pick(g, "pt_owner", "authenticated"))
	}
}

// moreFunctions makes what depends on how a name is looked up, and views.
func (g *gen) moreFunctions() {
	s := g.fns
	for _, arg := range []string{"text", "integer", "varchar", "smallint"} {
		g.setup("create function %s.over(a %s) returns boolean language sql stable as $f$ select a::text %s $f$", s, arg, pick(g, "<> ''", "= 'a'", "is null", "> '0'"))
	}
	g.setup("create function %s.defaulted(a integer, upper_bound integer default 5, lower_bound integer default 0) returns boolean language sql immutable as $f$ select a between lower_bound and upper_bound $f$", s)
	g.setup("create function %s.several(variadic a integer[]) returns boolean language sql immutable as $f$ select a[1] > a[2] $f$", s)
	g.setup("create function %s.same(a anyelement, b anyelement) returns boolean language sql immutable as $f$ select a = b $f$", s)
	g.setup("create function %s.remainder(a integer, b integer) returns boolean language sql immutable as $f$ select a %% nullif(b, 0) = 0 $f$", s)
	g.setup("create function %s.odd(a integer) returns boolean language sql immutable as $f$ select a %% 2 <> 0 $f$", s)
	g.setup("create operator %[1]s.=%% (leftarg = integer, rightarg = integer, function = %[1]s.remainder)", s)
	g.setup("create operator %[1]s.=%% (rightarg = integer, function = %[1]s.odd)", s)
	g.setup("create domain %s.person as uuid check (value is not null)", s)
	g.setup("create domain %s.small as integer check (value < 3)", s)
	g.setup("create type %s.pair as (a text, b integer)", s)
	g.setup("create function %[1]s.make_pair(n integer) returns %[1]s.pair language sql stable as $f$ select row('x', n)::%[1]s.pair $f$", s)
	g.setup("create collation %s.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)", s)
	// The same name in two schemas: which one is meant depends on the search_path.
	g.setup("create table public.choice (n integer)")
	g.setup("create table app.choice (n integer)")
	g.setup("insert into public.choice values (1), (2)")
	g.setup("insert into app.choice values (0), (3)")
	g.setup("grant select on public.choice, app.choice to public")
	const body = "begin return exists (select from choice c where c.n = a); end"
	g.setup("create function %s.by_path(a integer) returns boolean language plpgsql stable as $f$ %s $f$", s, body)
	g.setup("create function %s.by_path_definer(a integer) returns boolean language plpgsql stable security definer as $f$ %s $f$", s, body)
	g.setup("create function %s.by_path_set(a integer) returns boolean language plpgsql stable set search_path = app, public as $f$ %s $f$", s, body)
	g.setup("create function %s.by_path_sql(a integer) returns boolean language sql stable as $f$ select exists (select from choice c where c.n = a) $f$", s)
	g.setup("create view %s.team_view as select * from %s", s, g.members)
	g.setup("create view %s.own_view with (security_invoker = %s) as select * from %s where user_id = auth.uid()", s, pick(g, "on", "off"), g.members)
	g.setup("grant select on %[1]s.team_view, %[1]s.own_view to anon, authenticated, pt_base", s)
	if g.chance(3) {
		g.setup("alter view %s.team_view owner to %s", s, pick(g, "pt_owner", "authenticated"))
	}
}

// grants gives most roles most things.
func (g *gen) grants() {
	all := strings.Join(readers, ", ")
	for _, t := range []string{g.w.Table, g.members, g.teams, g.profiles, g.closed} {
		g.setup("revoke all on %s from public, anon, authenticated, service_role, postgres", t)
	}
	part := func(table, columns string) {
		if g.chance(5) {
			// Columns for some, the whole table for others, nothing for the rest.
			g.setup("grant select (%s) on %s to %s", columns, table, pick(g, "authenticated", "anon, authenticated", "pt_base"))
			g.setup("grant select on %s to %s", table, pick(g, "service_role", "pt_owner, anon", "authenticated"))
			return
		}
		g.setup("grant select on %s to %s", table, all)
		if g.chance(6) {
			g.setup("revoke select on %s from %s", table, pick(g, "anon", "pt_base", "pt_bypass"))
		}
	}
	before := len(g.w.Setup)
	part(g.w.Table, pick(g, g.w.Key, g.w.Key+", "+g.cols["user_id"], g.cols["n"]+", "+g.cols["user_id"]))
	if g.w.Leaf != "" { // the same for the partition, which changes are about
		g.setup("revoke all on %s from public, anon, authenticated, service_role, postgres", g.w.Leaf)
		for _, s := range slices.Clone(g.w.Setup[before:]) {
			if strings.Contains(s, " on "+g.w.Table+" ") {
				g.w.Setup = append(g.w.Setup, strings.Replace(s, " on "+g.w.Table+" ", " on "+g.w.Leaf+" ", 1))
			}
		}
	}
	part(g.members, pick(g, "user_id, team_id", "team_id, role", "user_id, team_id, role, active, org_id"))
	part(g.teams, pick(g, "id, org_id", "id, open, owner_id"))
	part(g.profiles, pick(g, "id, is_admin", "id, email, level"))
}
