package rest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice/rest"
	"github.com/sluice-dev/sluice/schema"
)

// spec: rest:PD-20 rest:PD-21
func TestTransactionEnd(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rest.Config) { c.TxEnd = "commit-allow-override" })
	const back = "return=representation, tx=rollback"
	w := s.want(`201 */* [{"a":1,"b":"x"}]`, "POST /simple", `{"a":1,"b":"x"}`, "Prefer", back)
	if got := w.Header().Get("Preference-Applied"); got != back {
		t.Errorf("Preference-Applied %s", got)
	}
	s.want(`200 0-0/1 [{"id":1}]`, "PATCH /items?id=eq.1&select=id", `{"grp":99}`, "Prefer", back+", count=exact")
	s.want(`200 */* [{"id":1}]`, "DELETE /items?id=eq.1&select=id", "", "Prefer", back)
	s.want(`200 0-0/* 1`, "POST /rpc/write_it", "{}", "Prefer", "tx=rollback")
	s.want(`409 {"code":"23503","details":"Key (up)=(9) is not present in table \"deferred\".","hint":null,"message":"insert or update on table \"deferred\" violates foreign key constraint \"deferred_up_fkey\""}`,
		"POST /deferred", `{"id":1,"up":9}`, "Prefer", "tx=rollback")
	s.want(`200 */* []`, "GET /simple", "")
	s.want(`200 0-0/* [{"id":1,"grp":1}]`, "GET /items?id=eq.1", "")
	if w := s.want(`201 */*`, "POST /simple", `{"a":2}`, "Prefer", "tx=commit"); w.Header().Get("Preference-Applied") != "tx=commit" {
		t.Errorf("applied %v", w.Header())
	}
	s.want(`200 0-0/* [{"a":2}]`, "GET /simple?select=a", "")

	always := start(t, func(c *rest.Config) { c.TxEnd = "rollback" })
	if w := always.want(`201 */*`, "POST /simple", `{"a":1}`, "Prefer", "tx=commit"); w.Header().Get("Preference-Applied") != "" {
		t.Errorf("applied %v", w.Header())
	}
	always.want(`200 */* []`, "GET /simple", "")
	if _, err := rest.New(rest.Config{Pool: noPool, Schema: new(schema.Cache), Schemas: []string{"public"}, Logger: discard, TxEnd: "sometimes"}); err == nil {
		t.Error("TxEnd sometimes is accepted")
	}
}

// spec: rest:AG-09
func TestAggregatesDisabled(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, line := range []string{
		"GET /tasks?select=count()", "GET /tasks?select=hours.sum()", "GET /projects?select=tasks(count())", "GET /tasks?select=...projects(count())",
		"GET /projects?select=...tasks(hours.sum())", "GET /rpc/all_projects?select=id.max()",
	} {
		wantError(t, s.do(line, ""), http.StatusBadRequest, "PGRST123", "Use of aggregate functions is not allowed")
	}
	s.want(`200 0-1/* [{"projects":[{"count":2}]}, {"projects":[{"count":1}]}]`, "GET /clients?select=projects(count)&order=id", "")
}

// What the database says of the options holds after a reload.
func TestOptionsInTheDatabase(t *testing.T) {
	t.Parallel()
	s := startPrivate(t)
	wantError(t, s.do("GET /tasks?select=count()", ""), http.StatusBadRequest, "PGRST123", "")
	for _, set := range []string{"db_aggregates_enabled = 'true'", "db_plan_enabled = 'true'", "db_tx_end = 'commit-allow-override'", "db_max_rows = '2'", "db_pre_request = 'public.whoami'"} {
		s.Exec("alter role authenticator set pgrst." + set)
	}
	s.reload()
	s.want(`200 0-0/* [{"count":5}]`, "GET /tasks?select=count()", "")
	s.want(`200 0-1/* [{"id":1}, {"id":2}]`, "GET /items?select=id&order=id", "")
	s.want(`201 */*`, "POST /simple", `{"a":1}`, "Prefer", "tx=rollback")
	s.want(`200 */* []`, "GET /simple", "")
	if w := s.do("GET /items", "", "Accept", "application/vnd.pgrst.plan"); w.Code != http.StatusOK {
		t.Errorf("plan: %d %s", w.Code, w.Body)
	}
}

// spec: rest:FM-13 rest:FM-14 rest:FM-15 rest:FM-16
func TestPlans(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rest.Config) { c.Plans = true })
	const js, text = `application/vnd.pgrst.plan+json; for="application/json"; options=verbose`, `application/vnd.pgrst.plan+text; for="application/json"; options=;`
	type plan []struct {
		Plan     map[string]any
		Settings map[string]string
	}
	for line, body := range map[string]string{
		"GET /items?id=eq.1": "", "POST /items": `{"id":100}`, "PATCH /items?id=eq.1": `{"grp":5}`, "DELETE /items?id=eq.1": "", "GET /rpc/items_between?min=1&max=2": "",
		"POST /rpc/add_them": `{"a":1,"b":2}`, "GET /projects?select=id,clients(name)": "",
	} {
		w := s.do(line, body, "Accept", js)
		var p plan
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 200 || len(p) != 1 || p[0].Plan["Node Type"] == nil ||
			w.Header().Get("Content-Type") != js+"; charset=utf-8" {
			t.Errorf("%s: %d %v %s", line, w.Code, w.Header(), w.Body)
		}
		w = s.do(line, body, "Accept", text)
		if w.Code != 200 || !strings.Contains(w.Body.String(), "(cost=") || w.Header().Get("Content-Type") != `application/vnd.pgrst.plan+text; for="application/json"; charset=utf-8` {
			t.Errorf("%s: %d %v %s", line, w.Code, w.Header(), w.Body)
		}
	}
	if w := s.do("POST /items", `{"id":100}`, "Accept", js, "Prefer", "resolution=merge-duplicates"); w.Code != 200 {
		t.Errorf("upsert: %d %s", w.Code, w.Body)
	}
	w := s.do("GET /items?id=eq.1", "", "Accept", `application/vnd.pgrst.plan+json; for="application/vnd.pgrst.object"; options=analyze|settings|buffers`)
	var p plan
	if json.Unmarshal(w.Body.Bytes(), &p) != nil || p[0].Plan["Actual Rows"] == nil ||
		w.Header().Get("Content-Type") != `application/vnd.pgrst.plan+json; for="application/vnd.pgrst.object+json"; options=analyze|settings|buffers; charset=utf-8` {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	delete(p[0].Settings, "jit") // the test server's
	if len(p[0].Settings) != 1 || p[0].Settings["search_path"] != `"public", "public", "extensions"` {
		t.Errorf("settings %v", p[0].Settings)
	}
	wantError(t, start(t, nil).do("GET /items", "", "Accept", js), http.StatusNotAcceptable, "PGRST107", "None of these media types are available: "+js)
}

// spec: rest:TX-14
func TestPreRequest(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.t (id int primary key);
insert into public.t values (1);
create function public.check_request() returns void language plpgsql as $$
begin
  case current_setting('request.headers')::json ->> 'x-do'
    when 'raise' then raise sqlstate 'PT402' using message = 'Pay first';
    when 'role' then set local role service_role;
    when 'headers' then perform set_config('response.headers', '[{"X-Checked":"' || current_setting('request.method') || '"}]', true), set_config('response.status', '203', true);
    else null;
  end case;
end $$;
create function public.who() returns text language sql stable as $$ select current_user::text $$;`, func(c *rest.Config) { c.PreRequest = "public.check_request" })
	s.want(`200 0-0/* [{"id":1}]`, "GET /t", "")
	wantError(t, s.do("GET /t", "", "X-Do", "raise"), http.StatusPaymentRequired, "PT402", "Pay first")
	s.want(`200 0-0/* "anon"`, "GET /rpc/who", "")
	s.want(`200 0-0/* "service_role"`, "GET /rpc/who", "", "X-Do", "role")
	for line, body := range map[string]string{"GET /t": "", "HEAD /t": "", "POST /t": `{"id":2}`, "PATCH /t?id=eq.1": `{"id":1}`, "DELETE /t?id=eq.9": "", "POST /rpc/who": "{}"} {
		method, _, _ := strings.Cut(line, " ")
		if w := s.do(line, body, "X-Do", "headers"); w.Code != http.StatusNonAuthoritativeInfo || w.Header().Get("X-Checked") != method {
			t.Errorf("%s: %d %v", line, w.Code, w.Header())
		}
	}
	s.want(`406 {"code":"PGRST116","details":"The result contains 0 rows","hint":null,"message":"Cannot coerce the result to a single JSON object"}`,
		"PATCH /t?id=eq.9", `{"id":8}`, "Accept", "application/vnd.pgrst.object+json")
}

// Between a change of the catalog and the reload, PostgreSQL decides; what was
// prepared before does not break.
//
// spec: rest:CA-06 rest:CA-07
func TestChangesBeforeTheReload(t *testing.T) {
	t.Parallel()
	s := startWith(t, "create table public.t (id int primary key, v text); insert into public.t values (1, 'x')", nil)
	for range 3 {
		s.want(`200 0-0/* [{"id":1,"v":"x"}]`, "GET /t?id=eq.1", "")
	}
	s.Exec("alter table public.t add column n int default 7, alter id type text using 'k' || id")
	for range 3 {
		s.want(`200 0-0/* [{"id":"k1","v":"x","n":7}]`, "GET /t?id=eq.k1", "")
		s.want(`200 0-0/* [{"n":7}]`, "GET /t?select=n", "")
	}
	wantError(t, s.do("POST /t", `{"n":1}`), http.StatusBadRequest, "PGRST204", "Could not find the 'n' column of 't' in the schema cache")
	s.reload()
	s.want(`201 */*`, "POST /t", `{"id":"k2","n":1}`)
	s.Exec("drop table public.t")
	wantError(t, s.do("GET /t", ""), http.StatusNotFound, "42P01", "")
	s.reload()
	wantError(t, s.do("GET /t", ""), http.StatusNotFound, "PGRST205", "")
}

// The server follows the database by itself.
func TestFollowsTheSchema(t *testing.T) {
	t.Parallel()
	s := startWith(t, "select", nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.cache.Run(ctx) }()
	s.ExecAs("postgres", "create table public.fresh (id int)")
	for s.do("GET /fresh", "").Code != http.StatusOK {
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// spec: rest:ER-07
func TestBriefErrors(t *testing.T) {
	t.Parallel()
	s := startPrivate(t)
	s.want(`404 {"code":"PGRST205","details":null,"hint":"Perhaps you meant the table 'public.projects'","message":"Could not find the table 'public.projectx' in the schema cache"}`, "GET /projectx", "")
	s.Exec("alter role authenticator set pgrst.client_error_verbosity = 'minimal'")
	s.reload()
	s.want(`404 {"code":"PGRST205","message":"Could not find the table 'public.projectx' in the schema cache"}`, "GET /projectx", "")
	s.want(`400 {"code":"P0001","message":"x"}`, "POST /rpc/boom", "{}")
}

// safeupdate is no package of Debian's: a trigger raises what it raises.
//
// spec: rest:PD-13
func TestSafeUpdate(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.t (id int primary key, v int);
insert into public.t values (1, 1), (2, 2);
create function public.safe() returns trigger language plpgsql as $$
begin
  if current_query() !~ 'WHERE "t"' then raise cardinality_violation using message = tg_op || ' requires a WHERE clause'; end if;
  return null;
end $$;
create table public.u (id int primary key, v int);
create trigger safe before update or delete on public.t for each statement execute function public.safe();`, nil)
	wantError(t, s.do("PATCH /t", `{"v":7}`), http.StatusBadRequest, "21000", "UPDATE requires a WHERE clause")
	wantError(t, s.do("DELETE /t", ""), http.StatusBadRequest, "21000", "DELETE requires a WHERE clause")
	s.want(`204 0-0/*`, "PATCH /t?id=eq.1", `{"v":7}`)
	s.want(`204 */*`, "DELETE /t?id=eq.2", "")
	s.want(`200 0-0/* [{"id":1,"v":7}]`, "GET /t", "")
	wantError(t, s.do("POST /u", `[{"id":1,"v":1},{"id":1,"v":2}]`, "Prefer", "resolution=merge-duplicates"), http.StatusInternalServerError, "21000", "")
}

// Constants for SQL are the database's own: whatever is set for the login or for
// its database is there in every request.
//
// spec: rest:TX-08
func TestAppSettings(t *testing.T) {
	t.Parallel()
	s := startPrivate(t)
	s.want(`200 0-0/* null`, "GET /rpc/setting?name=app.settings.secret", "")
	s.Exec(`alter database ` + s.Name + ` set "app.settings.secret" = 'of the database'`)
	s.Exec(`alter role authenticator set "app.settings.stage" = 'test'`)
	s.users.Reset()
	s.want(`200 0-0/* "of the database"`, "GET /rpc/setting?name=app.settings.secret", "", "As", "alice")
	s.want(`200 0-0/* "test"`, "POST /rpc/setting", `{"name":"app.settings.stage"}`)
}

// What a route of GraphQL asks for: pg_graphql's function, which a function of
// the same name stands in for. Without the extension it says that it is not there.
func TestGraphQLFunction(t *testing.T) {
	t.Parallel()
	s := startWith(t, "select", func(c *rest.Config) { c.Schemas = []string{"public", "graphql_public"} })
	const line, query = "POST /rpc/graphql", `{"query":"{ a }","variables":{"v":1}}`
	s.want(`200 0-0/* {"errors": [{"message": "pg_graphql extension is not enabled."}]}`, line, query, "Content-Profile", "graphql_public")
	s.Exec(`create or replace function graphql_public.graphql("operationName" text default null, query text default null, variables jsonb default null, extensions jsonb default null)
  returns jsonb language sql stable as $$ select jsonb_build_object('data', query, 'v', variables, 'as', current_user) $$`)
	s.want(`200 0-0/* {"v": {"v": 1}, "as": "anon", "data": "{ a }"}`, line, query, "Content-Profile", "graphql_public")
}
