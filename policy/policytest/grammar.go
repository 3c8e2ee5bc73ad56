package policytest

import (
	"fmt"
	"slices"
	"strings"
)

// leaf is one shape of a condition.
type leaf struct {
	shape string
	gap   string
	// rare shapes are made seldom: they deny all, or run into a known difference.
	rare bool
	make func(g *gen) string
}

// c returns a column by its meaning, with or without the table's name.
func (g *gen) c(meaning string) string {
	if g.chance(3) {
		return g.q(meaning)
	}
	return g.cols[meaning]
}

// q returns a column with the table's name, as sub-selects must.
func (g *gen) q(meaning string) string { return g.ref + "." + g.cols[meaning] }

// me returns a spelling of the user's id.
func (g *gen) me() string {
	return pick(g, "auth.uid()", "auth.uid()", "(select auth.uid())", "( SELECT auth.uid() AS uid)", "(auth.jwt() ->> 'sub')::uuid",
		"(current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid", "nullif(current_setting('request.jwt.claim.sub', true), '')::uuid", "((select auth.jwt()) ->> 'sub')::uuid")
}

func (g *gen) meta(name string) string {
	return pick(g, "(auth.jwt() -> 'app_metadata' ->> '"+name+"')", "((select auth.jwt()) -> 'app_metadata' ->> '"+name+"')", "(auth.jwt() #>> '{app_metadata,"+name+"}')",
		"(current_setting('request.jwt.claims', true)::json -> 'app_metadata' ->> '"+name+"')", "(auth.jwt() -> 'app_metadata' ->> '"+name+"')", "((auth.jwt() -> 'app_metadata')::jsonb ->> '"+name+"')")
}

func (g *gen) x() extra { return g.extras[g.IntN(len(g.extras))] }

// claimTeams is the spelling of an array of team ids of the token.
func (g *gen) claimTeams() string {
	t := g.team.name
	teams := "auth.jwt() -> 'app_metadata' -> 'team_ids'"
	return pick(g,
		"(array(select jsonb_array_elements_text("+teams+"))::"+t+"[])",
		"(array(select jsonb_array_elements_text(coalesce("+teams+", '[]'))))::"+t+"[]",
		"array(select e::"+t+" from jsonb_array_elements_text("+teams+") e)",
		"(select array_agg(e::"+t+") from jsonb_array_elements_text("+teams+") e)",
		"string_to_array("+g.meta("teams_csv")+", ',')::"+t+"[]",
		"(translate("+g.meta("team_ids")+", '[]', '{}'))::"+t+"[]",
		"(replace(replace("+g.meta("team_ids")+", '[', '{'), ']', '}'))::"+t+"[]")
}

// leaves are all shapes.
var leaves = []leaf{
	{shape: "true", make: func(g *gen) string { return pick(g, "true", "true", "1 = 1") }},
	{shape: "false or null", rare: true, make: func(g *gen) string { return pick(g, "false", "null", "null::boolean", "not true") }},
	{shape: "role", make: func(g *gen) string {
		return pick(g, "auth.role() = 'authenticated'", "(select auth.role()) = 'authenticated'", "auth.role() in ('authenticated', 'anon')", "auth.role() <> 'anon'", "auth.jwt() ->> 'role' = 'authenticated'")
	}},
	{shape: "owner", make: func(g *gen) string {
		if g.chance(2) {
			return g.me() + " = " + g.c("user_id")
		}
		return g.c("user_id") + " = " + g.me()
	}},
	{shape: "owner as text", make: func(g *gen) string {
		return pick(g, "auth.uid()::text = "+g.c("user_id")+"::text", "auth.jwt() ->> 'sub' = "+g.c("user_id")+"::text", "(current_setting('request.jwt.claims', true)::jsonb ->> 'sub') = "+g.c("user_id")+"::text",
			"current_setting('request.jwt.claim.sub', true) = "+g.c("user_id")+"::text", "current_setting('request.jwt.claims', true)::json ->> 'sub' = "+g.c("user_id")+"::text")
	}},
	{shape: "signed in", make: func(g *gen) string { return g.me() + pick(g, " is not null", " is null") }},
	{shape: "uid in columns", make: func(g *gen) string {
		return pick(g, g.c("user_id")+" in ("+g.me()+", "+g.c("other_id")+")", g.me()+" in ("+g.c("user_id")+", "+g.c("other_id")+")", g.me()+" = any (array["+g.c("user_id")+", "+g.c("other_id")+"])",
			g.me()+" not in ("+g.c("user_id")+", "+g.c("other_id")+")", g.me()+" <> all (array["+g.c("user_id")+", "+g.c("other_id")+"])")
	}},
	{shape: "public or owner", make: func(g *gen) string { return g.c("is_public") + " or " + g.c("user_id") + " = " + g.me() }},
	{shape: "flag", make: func(g *gen) string {
		return g.c("is_public") + pick(g, "", " = true", " is true", " is not true", " is false", " is not false", " is unknown", " is not unknown", " is null", " is not null", " <> false")
	}},
	{shape: "org of the token", make: func(g *gen) string {
		return pick(g, g.meta("org_id")+"::uuid = "+g.c("org_id"), g.c("org_id")+"::text = "+g.meta("org_id"), g.c("org_id")+" = "+g.fns+".org()", g.c("org_id")+" = (select "+g.fns+".org())")
	}},
	{shape: "email of the token", make: func(g *gen) string {
		return pick(g, "auth.jwt() ->> 'email' = "+g.c("email"), "auth.email() = "+g.c("email"), "lower(auth.jwt() ->> 'email') = lower("+g.c("email")+")", "(select auth.email()) = "+g.c("email"),
			"auth.jwt() ->> 'email' like '%@example.com'", "split_part(auth.email(), '@', 2) = split_part("+g.c("email")+", '@', 2)")
	}},
	{shape: "roles of the token", make: func(g *gen) string {
		return pick(g, "auth.jwt() -> 'app_metadata' -> 'roles' ? 'admin'", "(auth.jwt() -> 'app_metadata' -> 'roles') @> '[\"admin\"]'", "'admin' = any (array(select jsonb_array_elements_text(auth.jwt() -> 'app_metadata' -> 'roles')))",
			"auth.jwt() -> 'app_metadata' -> 'roles' ?| array['admin', 'member']", "exists (select from jsonb_array_elements_text(auth.jwt() -> 'app_metadata' -> 'roles') r where r = 'admin')", "auth.jwt() ? 'email'")
	}},
	{shape: "boolean of the token", make: func(g *gen) string {
		return pick(g, g.meta("is_admin")+"::boolean", "coalesce("+g.meta("is_admin")+"::boolean, false)", g.meta("is_admin")+" = 'true'", "(auth.jwt() -> 'app_metadata' -> 'is_admin') = 'true'::jsonb")
	}},
	{shape: "teams of the token", make: func(g *gen) string { return g.c("team_id") + " = any (" + g.claimTeams() + ")" }},
	{shape: "number of the token", make: func(g *gen) string {
		v := pick(g, "(auth.jwt() ->> 'level')::int", "(auth.jwt() ->> 'level')::numeric", "(auth.jwt() ->> 'level')::bigint", "(auth.jwt() -> 'level')::int", "(auth.jwt() -> 'level')::numeric", "(auth.jwt() ->> 'level')::float8")
		return v + pick(g, " > ", " = ", " <= ", " <> ") + g.c("n")
	}},
	{shape: "value of the token", make: func(g *gen) string {
		x := g.x()
		return pick(g, x.name+" = (auth.jwt() ->> 'v')::"+x.typ.name, x.name+"::text = auth.jwt() ->> 'v'", x.name+" is not distinct from (auth.jwt() ->> 'v')::"+x.typ.name, "(select (auth.jwt() ->> 'v')::"+x.typ.name+") <> "+x.name)
	}},
	{shape: "jwt as jsonb", make: func(g *gen) string {
		return pick(g, "auth.jwt() -> 'level' = to_jsonb("+g.c("n")+")", "auth.jwt() @> jsonb_build_object('email', "+g.c("email")+")", "jsonb_typeof(auth.jwt() -> 'level') = 'number'", "auth.jwt() -> 'app_metadata' <> '{}'",
			"auth.jwt() -> 'app_metadata' is not null", "auth.jwt() ->> 'nested' is null", "(auth.jwt() -> 'user_metadata' ->> 'nick') = "+g.c("label"), "auth.jwt() #> '{nested,a,b}' is not null", "auth.jwt() ->> 'role_name' = 'member'",
			"jsonb_array_length(auth.jwt() -> 'app_metadata' -> 'roles') > 1", "(auth.jwt() -> 'app_metadata' -> 'roles' ->> 0) = 'admin'", "auth.jwt()::text like '%admin%'")
	}},
	{shape: "setting", make: func(g *gen) string {
		return pick(g, "current_setting('request.jwt.claims', true)::jsonb ->> 'sub' is not null", "current_setting('request.jwt.claim.role', true) = 'authenticated'", "current_setting('request.jwt.claims')::json ->> 'email' = "+g.c("email"),
			"current_setting('app.none', true) is null", "coalesce(current_setting('request.headers', true), '') = ''", "current_setting('role') <> 'anon'")
	}},
	{shape: "missing setting", rare: true, make: func(*gen) string { return "current_setting('app.none') = ''" }},
	{shape: "current_user", make: func(g *gen) string {
		return pick(g, "current_user = 'authenticated'", "session_user = 'authenticator'", "current_user <> session_user", "current_role in ('anon', 'pt_base')", "pg_has_role(current_user, 'pt_base', 'member')", "user = 'authenticated'",
			"pg_has_role('pt_base', 'usage')", "current_user = auth.role()")
	}},
	{shape: "exists", make: func(g *gen) string {
		return pick(g, "exists (select 1 from "+g.members+" m where m.team_id = "+g.q("team_id")+" and m.user_id = "+g.me()+")", "exists (select from "+g.members+" where members.team_id = "+g.q("team_id")+" and members.user_id = "+g.me()+")",
			"exists (select * from "+g.members+" m where m.team_id = "+g.q("team_id")+" and m.user_id = auth.uid() and m.role in ('admin', 'owner') and m.active)", "exists (select from "+g.members+" m where m.user_id = "+g.q("user_id")+")",
			"exists (select from "+g.profiles+" p where p.id = "+g.me()+" and (p.is_admin or p.level > "+g.q("n")+"))", "exists (select from "+g.teams+" where id = "+g.q("team_id")+")")
	}},
	{shape: "exists without the row", make: func(g *gen) string {
		return pick(g, "exists (select from "+g.profiles+" p where p.id = auth.uid() and p.is_admin)", "(select p.is_admin from "+g.profiles+" p where p.id = auth.uid() limit 1)", "exists (select from "+g.members+" where user_id = "+g.me()+")")
	}},
	{shape: "exists two levels", make: func(g *gen) string {
		return pick(g,
			"exists (select from "+g.teams+" t2 where t2.id = "+g.q("team_id")+" and exists (select from "+g.members+" m where m.team_id = t2.id and m.user_id = auth.uid()))",
			"exists (select from "+g.teams+" t2 join "+g.members+" m on m.team_id = t2.id where t2.org_id = "+g.q("org_id")+" and m.user_id = "+g.me()+")",
			"exists (select from "+g.members+" m where m.user_id = auth.uid() and m.team_id in (select t2.id from "+g.teams+" t2 where t2.org_id = "+g.q("org_id")+" and t2.open))",
			g.c("org_id")+" in (select t2.org_id from "+g.teams+" t2 where t2.id in (select team_id from "+g.members+" where user_id = "+g.me()+"))")
	}},
	{shape: "not exists", make: func(g *gen) string {
		return "not exists (select from " + g.members + " m where m.team_id = " + g.q("team_id") + " and m.user_id = " + pick(g, g.me(), g.q("user_id")) + ")"
	}},
	{shape: "in", make: func(g *gen) string {
		return pick(g, g.c("team_id")+" in (select team_id from "+g.members+" where user_id = "+g.me()+")", g.c("team_id")+" in (select m.team_id from "+g.members+" m)", g.me()+" in (select m.user_id from "+g.members+" m where m.team_id = "+g.q("team_id")+")",
			"("+g.c("team_id")+", "+g.c("user_id")+") in (select m.team_id, m.user_id from "+g.members+" m)", g.c("user_id")+" in (select id from "+g.profiles+" where level >= 2)")
	}},
	{shape: "not in", make: func(g *gen) string {
		return pick(g, g.c("team_id")+" not in (select team_id from "+g.members+" where user_id = "+g.me()+")", g.c("user_id")+" not in (select user_id from "+g.members+")", g.c("user_id")+" not in (select user_id from "+g.members+" where user_id is not null)",
			g.c("n")+" not in (1, null)", g.c("user_id")+" <> all (select id from "+g.profiles+")")
	}},
	{shape: "any of array", make: func(g *gen) string {
		return pick(g, g.c("team_id")+" = any (array(select m.team_id from "+g.members+" m where m.user_id = "+g.me()+"))", g.c("org_id")+" = any ((select array_agg(org_id) from "+g.members+" where user_id = "+g.me()+")::uuid[])",
			g.c("team_id")+" = any (select m.team_id from "+g.members+" m where m.active)", g.c("user_id")+" <> all (array(select user_id from "+g.members+" where not active))")
	}},
	{shape: "scalar sub-select", make: func(g *gen) string {
		return pick(g, g.c("org_id")+" = (select p.org_id from "+g.profiles+" p where p.id = auth.uid())", "(select t2.owner_id from "+g.teams+" t2 where t2.id = "+g.q("team_id")+" order by t2.owner_id limit 1) = "+g.me(),
			"(select max(level) from "+g.profiles+" where id = "+g.me()+") > "+g.c("n"), g.c("n")+" < (select level from "+g.profiles+" p where p.id = "+g.q("user_id")+")", "coalesce((select p.level from "+g.profiles+" p where p.id = auth.uid()), 0) >= "+g.c("n"))
	}},
	{shape: "more than one row", rare: true, make: func(g *gen) string {
		return g.c("org_id") + " = (select m.org_id from " + g.members + " m where m.team_id = " + g.q("team_id") + ")"
	}},
	{shape: "count", make: func(g *gen) string {
		return "(select count(*) from " + g.members + " m where m.team_id = " + g.q("team_id") + pick(g, "", " and m.active", " and m.user_id = "+g.me()) + ")" + pick(g, " > 0", " >= 2", " = 0", " between 1 and 2")
	}},
	{shape: "security definer", make: func(g *gen) string {
		return g.fns + "." + pick(g, "is_member("+g.c("team_id")+")", "is_member_open("+g.c("team_id")+")", "authorize('admin')", "is_admin()", "is_member("+g.c("team_id")+") is not true")
	}},
	{shape: "function of rows", make: func(g *gen) string {
		return pick(g, g.c("team_id")+" in (select "+g.fns+".my_teams())", g.c("team_id")+" = any (array(select "+g.fns+".my_teams()))", g.c("team_id")+" in (select x from "+g.fns+".my_teams() x)")
	}},
	{shape: "function as the user", make: func(g *gen) string {
		return g.fns + "." + pick(g, "is_member_invoker("+g.c("team_id")+")", "has_team("+g.c("team_id")+")", "has_team_column("+g.c("team_id")+")", "knows("+g.c("user_id")+")", "knows("+g.c("other_id")+")")
	}},
	{shape: "volatile function", make: func(g *gen) string {
		return pick(g, g.fns+".vol("+g.c("n")+")", "random() >= 0", "clock_timestamp() > '2020-01-01' and "+g.c("n")+" > 0", "(select random()) < 2")
	}},
	{shape: "strict function", make: func(g *gen) string {
		return g.fns + "." + pick(g, "strict_sum("+g.c("n")+", 1) > 1", "strict_true("+g.c("label")+")", "strict_true(auth.jwt() ->> 'email')", "strict_sum("+g.c("n")+", null) is null")
	}},
	{shape: "function that raises", make: func(g *gen) string { return g.fns + ".raises(" + g.c("n") + ")" }},
	{shape: "function without execute", make: func(g *gen) string { return g.fns + ".only_some(" + g.c("n") + ")" }},
	{shape: "whole row", make: func(g *gen) string {
		return pick(g, g.fns+".whole("+g.ref+")", g.fns+".whole("+g.ref+".*)", g.ref+" is not null", "not ("+g.ref+" is null)", "to_jsonb("+g.ref+") ->> 'n' is not null")
	}},
	{shape: "coalesce", make: func(g *gen) string {
		return pick(g, "coalesce("+g.c("is_public")+", "+g.c("user_id")+" = "+g.me()+")", "coalesce("+g.c("user_id")+", "+g.c("other_id")+") = "+g.me(), "coalesce("+g.c("n")+", 0) > 0", "coalesce("+g.c("label")+", '') <> ''", "coalesce("+g.me()+" = "+g.c("user_id")+", false)")
	}},
	{shape: "case", make: func(g *gen) string {
		return pick(g, "case when "+g.c("is_public")+" then true when "+g.c("user_id")+" = "+g.me()+" then true else false end", "case auth.role() when 'anon' then "+g.c("is_public")+" when 'authenticated' then "+g.c("user_id")+" is not null end",
			"case when "+g.c("n")+" <> 0 then 10 / "+g.c("n")+" > 4 end", "case "+g.c("n")+" when 1 then 'x' when 2 then "+g.c("label")+" end is not null")
	}},
	{shape: "nullif", make: func(g *gen) string {
		return pick(g, "nullif("+g.c("n")+", 0) is not null", "nullif("+g.c("label")+", '') is null", "nullif("+g.c("user_id")+", "+g.me()+") is null", "10 / nullif("+g.c("n")+", 0) > 4")
	}},
	{shape: "distinct from", make: func(g *gen) string {
		op := pick(g, " is distinct from ", " is not distinct from ")
		return pick(g, g.c("user_id")+op+g.me(), g.c("n")+op+"1", g.c("user_id")+op+g.c("other_id"), g.c("label")+op+"null", "("+g.c("n")+", "+g.c("label")+")"+op+"(1, 'a')")
	}},
	{shape: "between", make: func(g *gen) string {
		return g.c("n") + pick(g, " between 0 and 2", " not between 0 and 2", " between symmetric 3 and 1", " between (auth.jwt() ->> 'level')::numeric and 5")
	}},
	{shape: "like", make: func(g *gen) string {
		return g.c("label") + pick(g, " like 'a%'", " not like 'a%'", " ilike 'A%'", ` like '%\%'`, ` like E'%\\\\%'`, " ~ '^[a-z]+$'", " ~* 'ADMIN'", " similar to '(a|b)%'", " like any (array['a%', '%b'])", " like '_'", " like (auth.jwt() ->> 'email') || '%'", " ^@ 'a'")
	}},
	{shape: "dates", make: func(g *gen) string {
		return g.c("created_at") + pick(g, " < now()", " > now() - interval '1 day'", " <= current_timestamp", "::date < current_date", " between now() - interval '30 days' and now() + interval '30 days'", " > '2024-01-01'", " at time zone 'UTC' < localtimestamp", " is not null")
	}},
	{shape: "division", make: func(g *gen) string {
		return pick(g, "1 / "+g.c("n")+" > 0", "10 % "+g.c("n")+" = 0", "100 / ("+g.c("n")+" - 1) >= 0", g.c("n")+" <> 0 and 1 / "+g.c("n")+" > 0", g.c("n")+" = 0 or 1 / "+g.c("n")+" > 0", "sqrt("+g.c("n")+"::float8) < 2")
	}},
	{shape: "arithmetic", make: func(g *gen) string {
		return pick(g, g.c("n")+" + 1 > 2", g.c("n")+" * "+g.c("n")+" < 9", "-"+g.c("n")+" < 0", "abs("+g.c("n")+") = 1", g.c("n")+"::numeric / 3 < 0.5", "length("+g.c("label")+") > 2", g.c("n")+" & 1 = 0", "("+g.c("n")+"::smallint + 32766::smallint)::bigint > 0")
	}},
	{shape: "cast that fails", make: func(g *gen) string {
		return pick(g, g.c("label")+"::int > 0", g.c("label")+"::boolean", g.c("label")+"::uuid = "+g.me(), g.c("label")+"::date < now()", g.c("label")+"::jsonb is not null", g.c("label")+"::numeric >= 1", "(auth.jwt() ->> 'email')::int = "+g.c("n"))
	}},
	{shape: "column and literal", make: func(g *gen) string {
		x := g.x()
		return x.name + pick(g, " = ", " <> ", " = ", " is distinct from ", " < ", " >= ") + x.typ.literal(g)
	}},
	{shape: "column in literals", make: func(g *gen) string {
		x := g.x()
		if g.chance(3) {
			return x.name + " = any (array[" + x.typ.literal(g) + ", " + x.typ.literal(g) + "])"
		}
		return x.name + pick(g, " in (", " not in (") + x.typ.literal(g) + ", " + x.typ.literal(g) + pick(g, "", ", null") + ")"
	}},
	{shape: "column is null", make: func(g *gen) string { return g.x().name + pick(g, " is null", " is not null") }},
	{shape: "column as text", make: func(g *gen) string {
		x := g.x()
		return x.name + "::text" + pick(g, " = ", " <> ", " > ") + sqlString(x.typ.literals[g.IntN(len(x.typ.literals))])
	}},
	{shape: "casts of columns", make: func(g *gen) string {
		x := g.x()
		return x.name + "::text::" + pick(g, "varchar(3)", "char(3)", "text", "name") + " = " + pick(g, "'a'", "'a  '", "'tru'", g.c("label"))
	}},
	{shape: "arrays", make: func(g *gen) string {
		return pick(g, "array["+g.c("n")+", 1] && array[2, 3]", "array["+g.c("user_id")+"] @> array["+g.me()+"]", g.c("label")+" = any (string_to_array('a,b,admin', ','))", "cardinality(string_to_array("+g.c("label")+", ',')) > 1", "(array['a', 'b'])["+g.c("n")+"] = 'a'")
	}},
	{shape: "row comparison", make: func(g *gen) string {
		return pick(g, "("+g.c("user_id")+", "+g.c("n")+") = ("+g.me()+", 1)", "("+g.c("n")+", "+g.c("label")+") >= (1, 'a')", "row("+g.c("n")+", "+g.c("label")+") is null")
	}},
	{shape: "view", make: func(g *gen) string {
		return pick(g, "exists (select from "+g.fns+".team_view v where v.team_id = "+g.q("team_id")+")", g.c("team_id")+" in (select v.team_id from "+g.fns+".own_view v)", "exists (select from "+g.fns+".own_view v where v.user_id = auth.uid() and v.team_id = "+g.q("team_id")+")")
	}},
	{shape: "union and with", make: func(g *gen) string {
		return pick(g, g.me()+" in (select p.id from "+g.profiles+" p where p.is_admin union select "+g.q("user_id")+")", g.c("team_id")+" in (with mine as (select m.team_id from "+g.members+" m where m.user_id = auth.uid()) select team_id from mine except select id from "+g.teams+" where not open)",
			"exists (with p as materialized (select level from "+g.profiles+" where id = auth.uid()) select from p where p.level >= "+g.q("n")+")", "exists (values (1), ("+g.q("n")+") intersect select level from "+g.profiles+")")
	}},
	{shape: "joins", make: func(g *gen) string {
		return pick(g, "exists (select from "+g.members+" m left join "+g.teams+" t2 on t2.id = m.team_id where m.user_id = auth.uid() and coalesce(t2.open, true) and m.team_id = "+g.q("team_id")+")",
			"exists (select from "+g.members+" m, lateral (select t2.org_id from "+g.teams+" t2 where t2.id = m.team_id limit 1) o where o.org_id = "+g.q("org_id")+")",
			"exists (select from "+g.members+" join "+g.profiles+" on profiles.id = members.user_id where members.team_id = "+g.q("team_id")+" and profiles.email = auth.email())", "exists (select from "+g.members+" a join "+g.members+" b using (team_id) where a.user_id = "+g.me()+" and b.user_id = "+g.q("user_id")+")")
	}},
	{shape: "aggregates", make: func(g *gen) string {
		return pick(g, "(select bool_or(m.active) from "+g.members+" m where m.user_id = "+g.me()+")", "exists (select m.team_id from "+g.members+" m group by m.team_id having count(*) > 1 and m.team_id = "+g.q("team_id")+")", "(select array_agg(m.team_id) from "+g.members+" m where m.user_id = auth.uid()) @> array["+g.q("team_id")+"]",
			"(select count(*) filter (where m.active) from "+g.members+" m where m.team_id = "+g.q("team_id")+") > 0", "(select max(rank) from (select row_number() over (order by p.level, p.id) as rank from "+g.profiles+" p) x) > "+g.c("n"))
	}},
	{shape: "overloaded function", make: func(g *gen) string {
		return g.fns + "." + pick(g, "over('a')", "over("+g.c("label")+")", "over("+g.c("label")+"::varchar)", "over("+g.c("n")+")", "over("+g.c("n")+"::smallint)", "over(null::text)", "defaulted("+g.c("n")+")", "defaulted("+g.c("n")+", lower_bound => 2)", "several("+g.c("n")+", 1, 2)", "same("+g.c("label")+", 'a')", "same("+g.c("n")+", 1)")
	}},
	{shape: "operator of the user", make: func(g *gen) string {
		return pick(g, g.c("n")+" operator("+g.fns+".=%) 2", "operator("+g.fns+".=%) "+g.c("n"), g.c("user_id")+"::"+g.fns+".person = "+g.me(), "("+g.c("n")+"::"+g.fns+".small) > 0")
	}},
	{shape: "composite", make: func(g *gen) string {
		return pick(g, "(row("+g.c("label")+", "+g.c("n")+")::"+g.fns+".pair).b > 0", "row("+g.c("label")+", "+g.c("n")+")::"+g.fns+".pair = row('a', 1)::"+g.fns+".pair", "("+g.fns+".make_pair("+g.c("n")+")).a = 'x'", "(select p.b from "+g.fns+".make_pair("+g.c("n")+") p) >= 1")
	}},
	{shape: "collation", make: func(g *gen) string {
		return pick(g, g.c("label")+` collate "C" < 'a'`, g.c("label")+` < 'b'`, `lower(`+g.c("label")+` collate "C") = 'a'`, g.c("label")+` = 'A' collate "POSIX"`, g.c("label")+" collate "+g.fns+".nocase = 'ADMIN'", g.c("label")+" collate "+g.fns+".nocase = auth.jwt() ->> 'v'")
	}},
	{shape: "parts of a time", make: func(g *gen) string {
		return pick(g, "extract(year from "+g.c("created_at")+") >= 2024", "date_trunc('day', "+g.c("created_at")+") <= now()", "("+g.c("created_at")+" at time zone (auth.jwt() ->> 'zone')) is null", "age(now(), "+g.c("created_at")+") > interval '5 days'", g.c("created_at")+"::text like '2024%'", "to_char("+g.c("created_at")+", 'YYYY') = '2024'", "("+g.c("created_at")+", interval '1 day') overlaps (now(), interval '1 day')")
	}},
	{shape: "names found by search_path", make: func(g *gen) string {
		return g.fns + "." + pick(g, "by_path("+g.c("n")+")", "by_path_definer("+g.c("n")+")", "by_path_sql("+g.c("n")+")", "by_path_set("+g.c("n")+")")
	}},
	{shape: "documents", make: func(g *gen) string {
		return pick(g, "to_jsonb("+g.c("label")+") <@ '[\"a\",\"b\"]'", "jsonb_path_exists(auth.jwt(), '$.app_metadata.roles[*] ? (@ == \"admin\")')", "auth.jwt() @@ '$.level == 1'", "jsonb_build_object('k', "+g.c("n")+") @> '{\"k\":1}'", "(auth.jwt() - 'app_metadata') ? 'sub'", "exists (select from jsonb_each_text(auth.jwt()) e where e.value = "+g.q("label")+")",
			"auth.jwt()['app_metadata']['org_id'] = to_jsonb("+g.c("org_id")+")", "jsonb_typeof(auth.jwt() -> 'app_metadata' -> 'team_ids') = 'array' and "+g.c("team_id")+"::text in (select jsonb_array_elements_text(auth.jwt() -> 'app_metadata' -> 'team_ids'))")
	}},
	{shape: "other table without privilege", rare: true, make: func(g *gen) string { return "not exists (select from " + g.closed + ")" }},
	{shape: "itself", rare: true, make: func(g *gen) string {
		return "exists (select from " + g.w.Table + " again where again." + g.w.Key + " = 1)"
	}},
	{shape: "hidden schema", gap: GapUsage, rare: true, make: func(g *gen) string { return "hidden.secret(" + g.c("n") + ")" }},
	{shape: "system column", gap: GapSystem, rare: true, make: func(g *gen) string { return g.ref + pick(g, ".ctid is not null", ".tableoid > 0") }},
}

// common are the shapes that most policies have. Half of the sets are made of them
// alone, as one condition that a tier does not claim keeps it from the whole set.
var common = []string{
	"true", "role", "owner", "owner as text", "signed in", "uid in columns", "public or owner", "flag", "org of the token", "email of the token", "roles of the token",
	"teams of the token", "exists", "exists without the row", "exists two levels", "in", "any of array", "scalar sub-select", "count", "security definer", "function of rows",
	"column and literal", "column in literals", "column is null", "distinct from", "between", "dates", "coalesce", "not in", "not exists", "value of the token",
}

// Shapes returns the names of all shapes of conditions.
func Shapes() []string {
	out := []string{"and", "or", "not", "boolean test", "coalesce of conditions", "case of conditions", "permissive and restrictive", "several permissive", "no policy", "partitioned table"}
	for _, l := range leaves {
		out = append(out, l.shape)
	}
	slices.Sort(out)
	return out
}

func (g *gen) leaf() *Expr {
	for {
		l := leaves[g.IntN(len(leaves))]
		if l.rare && !g.chance(2) || g.common && !slices.Contains(common, l.shape) {
			continue
		}
		return &Expr{Text: l.make(g), Shape: l.shape, Gap: l.gap}
	}
}

// expr makes a condition of at most some levels.
func (g *gen) expr(depth int) *Expr {
	if depth <= 0 || g.chance(2) {
		return g.leaf()
	}
	kids := func(n int) (out []*Expr) {
		for range n {
			out = append(out, g.expr(depth-1))
		}
		return out
	}
	switch g.IntN(9) {
	case 0, 1, 2:
		n := 2 + g.IntN(2)
		return &Expr{Text: strings.TrimSuffix(strings.Repeat("(%s) and ", n), " and "), Kids: kids(n), Shape: "and"}
	case 3, 4, 5:
		n := 2 + g.IntN(2)
		return &Expr{Text: strings.TrimSuffix(strings.Repeat("(%s) or ", n), " or "), Kids: kids(n), Shape: "or"}
	case 6:
		return &Expr{Text: "not (%s)", Kids: kids(1), Shape: "not"}
	case 7:
		return &Expr{Text: "(%s)" + pick(g, " is true", " is not true", " is false", " is not false", " is unknown", " is not null", " = true"), Kids: kids(1), Shape: "boolean test"}
	}
	if g.chance(2) {
		return &Expr{Text: "coalesce((%s), (%s))", Kids: kids(2), Shape: "coalesce of conditions"}
	}
	return &Expr{Text: "case when (%s) then (%s) else (%s) end", Kids: kids(3), Shape: "case of conditions"}
}

// policies returns one set of policies.
func (g *gen) policies() []Policy {
	g.common = g.chance(2)
	n := pick(g, 1, 1, 1, 1, 2, 2, 3)
	if g.chance(40) {
		n = 0
	}
	names := []string{"a policy", "b", "Z", "ä", `q"q`, "own"}
	g.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	out := make([]Policy, n)
	for i := range out {
		p := Policy{Name: plain(names[i]), Permissive: i == 0 || !g.chance(3), Command: pick(g, "select", "select", "select", "all"), Roles: []string{"public"}}
		if g.chance(20) {
			p.Permissive = false
		}
		if g.chance(25) {
			p.Command = pick(g, "insert", "update", "delete")
		}
		if g.chance(4) {
			p.Roles = pick(g, []string{"authenticated"}, []string{"anon", "authenticated"}, []string{"pt_base"}, []string{"pt_owner", "authenticated"}, []string{`"PT Odd"`, "authenticated", "pt_noinherit"})
		}
		if !g.chance(50) {
			p.Using = g.expr(pick(g, 0, 0, 1, 1, 2, 3))
		}
		if p.Command == "insert" && p.Using == nil {
			p.Command = "select"
		}
		out[i] = p
	}
	return out
}

// with returns the world with other policies.
func (g *gen) with(policies []Policy) *World {
	w := g.w.clone()
	w.Policies = policies
	return w
}

// String names a world in messages.
func (w *World) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "world %d", w.Seed)
	for i := range w.Policies {
		b.WriteString("\n" + w.Policies[i].SQL(w.Table))
	}
	return b.String()
}
