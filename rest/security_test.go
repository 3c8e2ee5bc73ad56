package rest_test

import (
	"fmt"
	"go/ast"
	goparser "go/parser"
	gotoken "go/token"
	"go/types"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/rest"
)

// hostile are names and values that would be SQL if they reached it.
var hostile = []string{
	`"; drop table public.victim; --`, `'; drop table public.victim; --`, `id" = "id" OR true --`, `id) OR (true`, `1 OR 1=1`, `$1`, `$$; drop table public.victim; $$`,
	`\'; drop table public.victim; --`, `E'\x27'`, `/*`, `*/ OR true`, "a\nb", "\t", `U&"\0022"`, `a"b`, `""`, `\`, `\"`, `%`, `ŷ́`, "\u2028", `😀`,
	strings.Repeat("x", 200), strings.Repeat(`"`, 70), `public.victim`, `pg_sleep(1)`, `1;select 1`, `::text`, `->>'x'`, `{1,"2`, `(select 1)`, `null`, `NaN`, `-1`, `0x1`,
}

// Whatever stands in whatever place, no statement is made of it: the victim
// stays, and no answer is a server's error or holds rows of the secret table.
func TestHostileNamesAndValues(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.victim (id int primary key, name text, js jsonb, tags text[], r int4range, doc tsvector);
insert into public.victim values (1, 'kept', '{}', '{}', '[1,2)', 'a');
create table public.friends (id int primary key, victim_id int references public.victim);
create table public.secret (id int primary key, word text default 'xyzzy');
insert into public.secret values (1);
revoke all on public.secret from anon, authenticated;
create function public.f(a text, v int default 1) returns setof public.victim language sql stable as $$ select * from public.victim where name = a $$;
create function public.g(a text, j json default null) returns text language sql stable as $$ select a $$;`, nil)
	places := []string{
		"GET /victim?select=%s", "GET /victim?select=%s:id", "GET /victim?select=id::%s", "GET /victim?select=js->%s", "GET /victim?select=js->>%s", "GET /victim?select=%s(id)",
		"GET /victim?select=friends!%s(id)", "GET /victim?select=%s:friends(id)", "GET /victim?select=...%s(id)", "GET /victim?select=friends(%s)", "GET /victim?select=%s.sum()",
		"GET /victim?order=%s", "GET /victim?order=id.%s", "GET /victim?select=friends(id)&friends.order=%s", "GET /victim?order=js->%s", "GET /victim?order=%s(id)",
		"GET /victim?%s=eq.1", "GET /victim?js->%s=eq.1", "GET /victim?%s.id=eq.1", "GET /victim?id=%s.1", "GET /victim?name=eq.%s", "GET /victim?name=in.(%s)", "GET /victim?tags=in.(%s)",
		"GET /victim?name=like(any).%s", "GET /victim?id=eq.%s", "GET /victim?tags=cs.%s", "GET /victim?r=adj.%s", "GET /victim?doc=fts(%s).a", "GET /victim?doc=wfts.%s", "GET /victim?id=is.%s",
		"GET /victim?or=(%s)", "GET /victim?or=(id.eq.%s)", "GET /victim?or=(%s.eq.1)", "GET /victim?and=(name.in.(%s))", "GET /victim?limit=%s", "GET /victim?offset=%s",
		"GET /%s", "GET /rpc/%s", "GET /rpc/f?a=%s", "GET /rpc/g?a=%s", "GET /rpc/f?%s=1", "GET /rpc/f?a=x&select=%s", "GET /rpc/f?a=x&%s=eq.1", "GET /rpc/f?a=x&order=%s",
		"POST /victim?columns=%s", "POST /victim?columns=id&on_conflict=%s", "POST /victim?select=%s", "PATCH /victim?name=eq.%s", "PATCH /victim?%s=eq.1", "DELETE /victim?name=eq.%s&id=eq.9",
		"DELETE /victim?%s=eq.9",
	}
	check := func(line, body string, header ...string) {
		t.Helper()
		w := s.do(line, body, header...)
		if w.Code >= 500 || strings.Contains(w.Body.String(), "xyzzy") {
			t.Errorf("%s %s: %d %s", line, body, w.Code, w.Body)
		}
	}
	for _, h := range hostile {
		for _, place := range places {
			if strings.HasPrefix(place, "GET /%s") || strings.HasPrefix(place, "GET /rpc/%s") {
				check(fmt.Sprintf(place, url.PathEscape(h)), "")
				continue
			}
			body := ""
			if place[0] == 'P' {
				body = `{"id":9}`
			}
			check(fmt.Sprintf(place, url.QueryEscape(h)), body, "Prefer", "return=representation, resolution=merge-duplicates, tx=rollback")
			s.Exec("delete from public.victim where id = 9")
		}
		quoted := fmt.Sprintf("%q", h)
		check("POST /victim", `{`+quoted+`:1}`)
		check("POST /victim", `{"id":8,"name":`+quoted+`,"js":{`+quoted+`:`+quoted+`}}`, "Prefer", "missing=default, return=headers-only")
		s.Exec("delete from public.victim where id = 8")
		check("POST /rpc/g", `{"a":`+quoted+`,"j":`+quoted+`}`)
		check("POST /rpc/g", `{`+quoted+`:1}`)
		if clean := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, h); clean != "" {
			for _, k := range []string{"Accept", "Prefer", "Range", "Accept-Profile", "Content-Type", "Cookie", "X-Any", "Referer"} {
				check("GET /victim", "", k, clean)
			}
			check("GET /victim", "", "Prefer", "timezone="+clean)
			check("GET /victim", "", "Prefer", "count="+clean+", return="+clean)
		}
	}
	var name string
	if err := s.Admin().QueryRow(t.Context(), "select name from public.victim where id = 1").Scan(&name); err != nil || name != "kept" {
		t.Errorf("the victim: %q, %v", name, err)
	}
	if log := s.log.String(); strings.Contains(log, "panic") {
		t.Errorf("a panic: %s", log)
	}
}

// What a statement may hold outside of quotes: the words of the fragments, and
// types and expressions of the catalog.
var (
	quotedText = regexp.MustCompile(`"(?:[^"]|"")*"|E?'(?:[^'])*'|\$[0-9]+`)
	sqlWord    = regexp.MustCompile(`[A-Za-z_][A-Za-z_0-9]*`)
	sqlRest    = regexp.MustCompile(`[0-9\s()\[\].,*=<>@&|!~:\-+]*`)
	allowed    = words(`
WITH AS MATERIALIZED SELECT FROM WHERE AND OR NOT IS NULL TRUE FALSE UNKNOWN DISTINCT ORDER BY DESC NULLS FIRST LAST LIMIT OFFSET GROUP LEFT INNER CROSS JOIN LATERAL ON
LIKE ILIKE ANY ALL IN COALESCE NULLIF CASE WHEN THEN ELSE END EXPLAIN FORMAT JSON ROW VARIADIC INSERT INTO VALUES DEFAULT CONFLICT DO NOTHING UPDATE SET
DELETE RETURNING OPERATOR ARRAY
pg_catalog count json_agg row_to_json to_jsonb to_json json_strip_nulls string_agg substr length replace json_object_keys json_to_record json_to_recordset jsonb_to_recordset jsonb_agg
jsonb_build_object jsonb_array_elements jsonb_build_array json_build_object ST_AsGeoJSON current_setting set_config sum avg min max
to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery regconfig
text json jsonb record int integer smallint bigint real float decimal dec boolean char character varying bit double precision interval timestamp time with without zone
extensions citext tsvector int4range daterange true public mood pair short uuid bytea numeric date nextval regclass auth uid bpchar`)
)

func words(list string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(list) {
		out[w] = true
	}
	return out
}

// FuzzStatement makes statements of any query string and body and looks at what
// stands in them outside of quoted names, literals without a backslash, and
// parameters.
func FuzzStatement(f *testing.F) {
	for _, q := range []string{
		"select=id,name::text,x:meta->a->>b,clients(id,projects!inner(*)),...tasks(name)&id=eq.1&or=(a.in.(1,2),b.fts(english).x)&order=id.desc,clients(name)&limit=3",
		"select=count(),meta->>n::int.sum()::text&tasks.order=id&name=like(any).{a,b}", `select="a""b":"c.d"&"x y"=is.null`, "columns=id,name&on_conflict=id&select=*",
	} {
		f.Add("GET", "/projects", q, "", "")
		f.Add("POST", "/projects", q, `[{"id":1,"name":"x"}]`, "return=representation, resolution=merge-duplicates, missing=default")
		f.Add("PATCH", "/projects", q, `{"name":"x"}`, "return=representation")
		f.Add("GET", "/rpc/all_projects", q, "", "count=exact")
	}
	f.Add("POST", "/rpc/kinds_of", "", `{"ints":[1],"js":{},"r":"[1,2)","m":"ok"}`, "")
	s := start(f, func(c *rest.Config) { c.Aggregates = true })
	f.Fuzz(func(t *testing.T, method, path, query, body, prefer string) {
		r, err := http.NewRequest(method, "http://x/", strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL.Path, r.URL.RawQuery = path, query
		r.Header.Set("Prefer", prefer)
		for _, line := range s.server.Statements(r) {
			bare := quotedText.ReplaceAllString(line, " ")
			for _, w := range sqlWord.FindAllString(bare, -1) {
				if !allowed[w] {
					t.Fatalf("word %q in %s", w, line)
				}
			}
			if left := sqlRest.ReplaceAllString(sqlWord.ReplaceAllString(bare, ""), ""); left != "" {
				t.Fatalf("%q in %s", left, line)
			}
		}
	})
}

// What others made in a schema of the search_path is not run in place of
// PostgreSQL's own: functions over the very row type, operators over the very
// types of a key.
func TestShadowedNames(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create extension citext with schema extensions;
create table public.owners (code varchar(9) primary key, name extensions.citext unique);
create table public.pets (id int primary key, owner varchar(9) references public.owners, friend extensions.citext references public.owners (name));
insert into public.owners values ('a', 'Ann'), ('b', 'Bob');
insert into public.pets values (1, 'a', 'BOB'), (2, 'b', null);
create function public.trap(text) returns boolean language plpgsql as $$ begin raise exception 'a trap for %: %', current_user, $1; end $$;
create function public.row_to_json(public.owners) returns json language sql as $$ select to_json(public.trap('row_to_json')) $$;
create function public.to_jsonb(public.owners) returns jsonb language sql as $$ select to_jsonb(public.trap('to_jsonb')) $$;
create function public.count(public.owners) returns bigint language sql as $$ select public.trap('count')::int::bigint $$;
create function public.set_config(varchar, varchar, boolean) returns text language sql as $$ select public.trap('set_config')::text $$;
create function public.current_setting(varchar, boolean) returns text language sql as $$ select public.trap('current_setting')::text $$;
create function public.same(varchar, varchar) returns boolean language sql as $$ select public.trap('=') $$;
create operator public.= (leftarg = varchar, rightarg = varchar, function = public.same);
create function public.same(varchar, text) returns boolean language sql as $$ select public.trap('=') $$;
create operator public.= (leftarg = varchar, rightarg = text, function = public.same);
create function public.unlike(text, varchar) returns boolean language sql as $$ select public.trap('!~') $$;
create operator public.!~ (leftarg = text, rightarg = varchar, function = public.unlike);
create operator public.!~* (leftarg = text, rightarg = varchar, function = public.unlike);
create operator public.<> (leftarg = text, rightarg = varchar, function = public.unlike);`, nil)
	s.want(`200 0-1/2 [{"id":1,"owners":{"code":"a"}}, {"id":2,"owners":{"code":"b"}}]`,
		"GET /pets?select=id,owners!pets_owner_fkey(code)&order=id", "", "Prefer", "count=exact")
	s.want(`200 0-0/* [{"id":1,"owners":{"code":"b"}}]`, "GET /pets?select=id,owners!pets_friend_fkey!inner(code)&order=id", "")
	s.want(`200 0-1/* [{"code":"a","pets":[{"id":1}]}, {"code":"b","pets":[{"id":2}]}]`, "GET /owners?select=code,pets!pets_owner_fkey(id)&order=code", "")
	s.want(`201 */* [{"code":"c","name":"Cid"}]`, "POST /owners", `{"code":"c","name":"Cid"}`, "Prefer", "return=representation, resolution=merge-duplicates")
	s.want(`200 0-0/* [{"code":"c"}]`, "PATCH /owners?name=eq.cid&select=code", `{"name":"CID"}`, "Prefer", "return=representation")
	s.want(`200 0-0/* {"code":"c","name":"CID"}`, "GET /owners?name=eq.cid", "", "Accept", "application/vnd.pgrst.object+json")
}

// writers are the methods of builder that write more than a fragment, what they
// write, and why it cannot be anything else than what it stands for. Whoever adds
// one adds its reason.
var writers = map[string][]string{
	"lit":           {`string(f)`},                                            // a constant: nothing else becomes a fragment
	"ident":         {`'"'`, "strings.ReplaceAll(name, `\"`, `\"\"`)", `'"'`}, // quoted, whatever it is
	"columnType":    {`c.Type`},                                               // format_type's words, from the snapshot
	"argType":       {`a.Type`},                                               // the same
	"columnDefault": {`"(" + *c.Default + ")"`},                               // pg_get_expr's words, from the snapshot
	"parameter":     {`'$'`, `strconv.Itoa(n)`},                               // a number
	"int":           {`strconv.FormatInt(n, 10)`},                             // a number
	"key":           {`"'" + k + "'"`},                                        // behind a loop that lets letters, digits, _ and - pass
	"explained":     {`b.sql.String()`},                                       // a whole statement, behind EXPLAIN
}

// Text becomes SQL in the methods of builder alone, by the expressions in writers:
// nothing else in this package writes into a statement, none of them takes SQL, and
// a fragment is made of constants.
func TestOneDoorForSQL(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := gotoken.NewFileSet()
	found, known := map[string][]string{}, map[ast.Expr]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := goparser.ParseFile(set, name, nil, goparser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, _ := d.(*ast.FuncDecl)
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "fragment" {
						t.Errorf("%s: text is made a fragment", set.Position(n.Pos()))
					}
					sel, ok := n.Fun.(*ast.SelectorExpr)
					if !ok || fn == nil || fn.Recv == nil {
						return true
					}
					switch of := types.ExprString(sel.X) + "." + sel.Sel.Name; of {
					case "b.sql.WriteString", "b.sql.WriteByte", "out.sql.WriteString":
						found[fn.Name.Name] = append(found[fn.Name.Name], types.ExprString(n.Args[0]))
						known[sel.X] = true
					case "b.sql.String":
						known[sel.X] = true
					}
				case *ast.SelectorExpr:
					if n.Sel.Name == "sql" && !known[n] {
						t.Errorf("%s: a statement is touched past the methods of builder", set.Position(n.Pos()))
					}
				}
				return true
			})
		}
	}
	if diff := cmp.Diff(writers, found); diff != "" {
		t.Errorf("what writes into a statement (- allowed, + found):\n%s", diff)
	}
}

// Who is asked for in FuzzDatabase, and what alice must not see.
const (
	ofBob    = "word-of-bob-7f3a"
	ofNobody = "word-of-nobody-91cc"
)

const fuzzSQL = `
create table public.notes (id int primary key, owner uuid not null, body text, meta jsonb, tags text[], up int references public.notes);
insert into public.notes values (2, '` + bob + `', '` + ofBob + `', '{"w": "` + ofBob + `"}', '{` + ofBob + `}', null);
alter table public.notes enable row level security;
create policy own on public.notes to authenticated using (owner = auth.uid()) with check (owner = auth.uid());
create table public.vault (id int primary key references public.notes, word text);
insert into public.vault values (2, '` + ofNobody + `');
revoke all on public.vault from anon, authenticated;
create table public.labels (id int primary key, name text, hidden text);
insert into public.labels values (1, 'red', '` + ofNobody + `'), (2, 'blue', '` + ofNobody + `');
revoke select on public.labels from anon, authenticated;
grant select (id, name) on public.labels to authenticated;
create table public.notes_labels (note int references public.notes, label int references public.labels, primary key (note, label));
insert into public.notes_labels values (2, 1);
create table public.ledger (id int primary key, amount int);
insert into public.ledger values (1, 100);
revoke insert, update, delete on public.ledger from anon, authenticated;
create view public.note_view with (security_invoker = true) as select id, body, up from public.notes;
create function public.my_notes(first int default 0) returns setof public.notes language sql stable as $$ select * from public.notes where id >= first $$;
create function public.shout(n public.notes) returns text language sql stable as $$ select upper(n.body) $$;
create function public.echo(a text, j json default null, variadic v int[] default '{}') returns json language sql immutable as $$ select json_build_object('a', a, 'j', j, 'v', v) $$;`

// fuzzQueries are where fuzzing of a real database begins.
var fuzzQueries = []string{
	"", "select=id,body,meta->w,tags,up(body),notes(id,labels(name)),...labels(names:name)&order=id.desc,up(id)&limit=5", "select=*,vault(*)", "select=id,labels(*)", "id=eq.2", "or=(id.gt.0,body.fts(english).x,not.and(tags.cs.{a},meta->>w.is.null))",
	"select=shout,count(),id.sum()::text&shout=like.*w*", "columns=id,body&on_conflict=id&select=id,labels(name)", "owner=neq.x&labels=is.null&select=labels!inner()", "first=1&id=in.(1,2,\"3\")&a=x&j={}&v=1&v=2", "offset=1&limit=0&select=id::text",
	"select=body&order=body.asc.nullsfirst&body=like(any).{a*,b}", "select=note_view(*)", "id=not.isdistinct.2", "select=hidden", "hidden=gt.a&select=id", "order=hidden", "select=id.max(),owner.count()", "select=id,notes_labels(note,notes(body))", "select=body::int",
}

// FuzzDatabase asks a real database, as alice, whatever comes. No statement is
// one that PostgreSQL cannot parse, nothing changes that alice may not change, and
// no answer holds words that a select as alice would not.
func FuzzDatabase(f *testing.F) {
	for _, q := range fuzzQueries {
		for _, line := range [][2]string{{"GET", "/notes"}, {"POST", "/notes"}, {"PATCH", "/notes"}, {"DELETE", "/notes"}, {"PUT", "/notes"}, {"GET", "/rpc/my_notes"}, {"POST", "/rpc/echo"}, {"GET", "/note_view"}, {"GET", "/labels"}, {"HEAD", "/vault"}, {"PATCH", "/ledger"}, {"DELETE", "/ledger"}, {"POST", "/vault"}} {
			f.Add(line[0], line[1], q, `{"id":2,"owner":"`+bob+`","body":"x","meta":{},"tags":["a"],"a":"b"}`, "return=representation, resolution=merge-duplicates, missing=default, count=exact", "")
			f.Add(line[0], line[1], q, `[{"id":7,"owner":"`+alice+`","body":"x"}]`, "return=headers-only, handling=strict, max-affected=1, tx=rollback", "text/csv")
		}
	}
	s := startWith(f, fuzzSQL, func(c *rest.Config) { c.Aggregates, c.TxEnd = true, "commit-allow-override" })
	as := bearer(f, "alice")
	theirs := func(t *testing.T) (out string) {
		t.Helper()
		const q = `insert into public.notes values (1, '` + alice + `', 'of alice', '{}', '{}', null) on conflict (id) do update set body = excluded.body`
		if _, err := s.Admin().Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		const sums = `select concat((select jsonb_agg(n order by id) from public.notes n where owner <> '` + alice + `'), (select jsonb_agg(v) from public.vault v),
			(select jsonb_agg(l) from public.ledger l), (select jsonb_agg(r order by rolname) from pg_roles r), (select jsonb_agg(a) from pg_auth_members a),
			(select count(*) from pg_class), (select count(*) from pg_proc), (select count(*) from pg_policy), (select jsonb_agg(s) from pg_db_role_setting s))`
		if err := s.Admin().QueryRow(t.Context(), sums).Scan(&out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	f.Fuzz(func(t *testing.T, method, path, query, body, prefer, accept string) {
		r, err := http.NewRequest(method, "http://x/", strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL.Path, r.URL.RawQuery = "/rest/v1"+path, query
		r.Header = http.Header{"Prefer": {prefer}, "Accept": {accept}, "Authorization": {as}}
		before := theirs(t)
		w := httptest.NewRecorder()
		s.gateway.ServeHTTP(w, r)
		answer := fmt.Sprint(w.Header(), w.Body.String())
		if strings.Contains(answer, `"42601"`) {
			t.Errorf("a statement that cannot be parsed: %s", answer)
		}
		if w.Code >= 500 && (strings.Contains(answer, "PGRSTX00") || strings.Contains(answer, `"XX000"`)) {
			t.Errorf("an error of the server: %s", answer)
		}
		asked := strings.ToLower(query + body + prefer + accept + path)
		for _, word := range []string{ofBob, ofNobody} {
			if strings.Contains(strings.ToLower(answer), word) && !strings.Contains(asked, word) {
				t.Errorf("alice is told %q: %s", word, answer)
			}
		}
		if after := theirs(t); after != before {
			t.Errorf("what is others' was changed:\n%s\n%s", before, after)
		}
	})
}

// FuzzReads asks two databases, as alice, that differ in nothing but what a plain
// select as alice does not show: how many rows others have and what is in them, a
// table and a column that she may not select. Whatever she asks for, the answers
// are the same to the byte, with status and headers: she learns nothing of it.
func FuzzReads(f *testing.F) {
	const own = `insert into public.notes values (10, '` + alice + `', 'mine', '{"w": 1}', '{a,b}', null), (11, '` + alice + `', 'also mine', '{}', '{}', 10), (12, '` + alice + `', '7', null, null, 2);
insert into public.notes_labels values (10, 1), (10, 2), (11, 1);`
	const other = `
insert into public.notes select i, '` + bob + `', 'more ' || i, '{"w": 1}', '{a}', 10 from generate_series(20, 29) i;
update public.notes set body = 'something else', meta = '{"w": 2, "x": [1]}', tags = '{a}', up = 11 where id = 2;
update public.vault set word = 'another word'; insert into public.vault values (10, 'of alice''s note');
update public.labels set hidden = reverse(hidden) || id;`
	worlds := []*stack{startWith(f, fuzzSQL+own, nil), startWith(f, fuzzSQL+own+other, nil)}
	for i, w := range worlds {
		agg, err := rest.New(rest.Config{Pool: w.users, Schema: w.cache, Schemas: []string{"public"}, ExtraSearchPath: []string{"public"}, MaxRows: 1000, Aggregates: true, Logger: w.logger})
		if err != nil {
			f.Fatal(i, err)
		}
		w.server = agg
	}
	id := sluice.Identity{Claims: sluice.Claims{Role: "authenticated", Subject: alice, JSON: []byte(`{"sub":"` + alice + `","role":"authenticated"}`)}}
	for _, q := range fuzzQueries {
		for _, line := range [][2]string{{"GET", "/notes"}, {"GET", "/rpc/my_notes"}, {"GET", "/note_view"}, {"GET", "/labels"}, {"HEAD", "/vault"}, {"GET", "/notes_labels"}, {"POST", "/rpc/my_notes"}} {
			f.Add(line[0], line[1], q, "count=exact", "", "")
			f.Add(line[0], line[1], q, "", "text/csv", "0-1")
		}
	}
	f.Fuzz(func(t *testing.T, method, path, query, prefer, accept, rng string) {
		if method != "GET" && method != "HEAD" && (method != "POST" || path != "/rpc/my_notes") || strings.Contains(prefer, "planned") || strings.Contains(prefer, "estimated") {
			return // writes meet what is hidden in keys, and plans in statistics: PostgreSQL's own doing
		}
		var answers [2]string
		for i, w := range worlds {
			r, err := http.NewRequest(method, "http://x/", strings.NewReader(""))
			if err != nil {
				return
			}
			r.URL.Path, r.URL.RawQuery = path, query
			r.Header = http.Header{"Prefer": {prefer}, "Accept": {accept}, "Range": {rng}}
			rec := httptest.NewRecorder()
			w.server.ServeHTTP(rec, r.WithContext(sluice.WithIdentity(t.Context(), id)))
			answers[i] = fmt.Sprint(rec.Code, rec.Header(), rec.Body)
		}
		if answers[0] != answers[1] {
			t.Errorf("what alice may not see changes her answer:\n%s\n%s", answers[0], answers[1])
		}
	})
}
