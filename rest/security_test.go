package rest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

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
WITH AS SELECT FROM WHERE AND OR NOT IS NULL TRUE FALSE UNKNOWN DISTINCT ORDER BY DESC NULLS FIRST LAST LIMIT OFFSET GROUP LEFT INNER CROSS JOIN LATERAL ON
LIKE ILIKE ANY ALL IN COALESCE NULLIF CASE WHEN THEN ELSE END EXPLAIN FORMAT JSON ROW VARIADIC INSERT INTO VALUES DEFAULT CONFLICT DO NOTHING UPDATE SET
DELETE RETURNING OPERATOR ARRAY
pg_catalog count json_agg row_to_json to_jsonb to_json json_strip_nulls string_agg substr length replace json_object_keys json_to_record json_to_recordset jsonb_to_recordset jsonb_agg
jsonb_build_object jsonb_array_elements jsonb_build_array json_build_object ST_AsGeoJSON current_setting set_config sum avg min max
to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery regconfig
text json jsonb int integer smallint bigint real float decimal dec boolean char character varying bit double precision interval timestamp time with without zone
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
