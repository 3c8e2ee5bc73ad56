package rest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-dev/sluice/rest"
	"github.com/sluice-dev/sluice/schema"
	"github.com/sluice-dev/sluice/token"
)

// wantError checks status and code, and the shape of an error.
func wantError(t *testing.T, w *httptest.ResponseRecorder, status int, code, message string) {
	t.Helper()
	var body struct{ Code, Message string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != status || body.Code != code || message != "" && body.Message != message {
		t.Errorf("got %d %s, want %d %s %s", w.Code, w.Body, status, code, message)
	}
	if got := w.Header().Get("Proxy-Status"); got != "PostgREST; error="+code {
		t.Errorf("Proxy-Status %q", got)
	}
}

// spec: rest:AU-01 rest:AU-02 rest:AU-24 rest:TX-04
func TestRoles(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for who, want := range map[string]string{
		"": `{"user" : "anon", "uid" : null, "claims" : {"role":"anon"}}`,
		"Bearer " + sign(t, jwt.MapClaims{"role": "service_role", "exp": 4102444800}): `{"user" : "service_role", "uid" : null, "claims" : {"exp":4102444800,"role":"service_role"}}`,
		"Bearer " + sign(t, jwt.MapClaims{"sub": alice, "exp": 4102444800}):           `{"user" : "anon", "uid" : "` + alice + `", "claims" : {"exp":4102444800,"sub":"` + alice + `","role":"anon"}}`,
	} {
		if w := s.do("GET /rpc/whoami", "", "Authorization", who); w.Body.String() != want {
			t.Errorf("%.20s: %s, want %s", who, w.Body, want)
		}
	}
	wantError(t, s.do("GET /notes", "", "Authorization", "Bearer a.b.c"), http.StatusUnauthorized, "PGRST301", "")
	s.want(`200 0-0/* [{"id":1}]`, "GET /notes?select=id", "", "As", "alice")
}

// spec: rest:AU-06 rest:AU-07 rest:AU-08 rest:AU-09 rest:AU-10 rest:AU-15
func TestBadTokens(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"role": "service_role"}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	other, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"role": "service_role"}).SignedString([]byte("another secret, as long as it has to be"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ bearer, message, details string }{
		{"", "Empty JWT is sent in Authorization header", ""},
		{"a.b", "Expected 3 parts in JWT; got 2", ""},
		{other, "No suitable key or wrong key type", "None of the keys was able to decode the JWT"},
		{"a.b.c", "JWT cryptographic operation failed", ""},
		{none, "Wrong or unsupported encoding algorithm", "JWT is unsecured but expected 'alg' was not 'none'"},
	} {
		w := s.do("GET /items", "", "Authorization", "Bearer "+c.bearer)
		wantError(t, w, http.StatusUnauthorized, "PGRST301", c.message)
		var body struct{ Details *string }
		if json.Unmarshal(w.Body.Bytes(), &body) != nil || (body.Details == nil) != (c.details == "") || body.Details != nil && *body.Details != c.details {
			t.Errorf("%s: details in %s", c.message, w.Body)
		}
		if got, want := w.Header().Get("WWW-Authenticate"), `Bearer error="invalid_token", error_description="`+c.message+`"`; got != want {
			t.Errorf("WWW-Authenticate %s, want %s", got, want)
		}
	}
}

// spec: rest:AU-11 rest:AU-12 rest:AU-13
func TestTokenClaims(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	now := time.Now().Unix()
	for _, c := range []struct {
		claims  jwt.MapClaims
		message string
	}{
		{jwt.MapClaims{"exp": now - 40}, "JWT expired"},
		{jwt.MapClaims{"exp": now - 20}, ""},
		{jwt.MapClaims{"exp": now + 60, "nbf": now + 40}, "JWT not yet valid"},
		{jwt.MapClaims{"exp": now + 60, "nbf": now + 20}, ""},
		{jwt.MapClaims{"exp": now + 60, "iat": now + 40}, "JWT issued at future"},
		{jwt.MapClaims{"exp": now + 60, "iat": now + 20}, ""},
		{jwt.MapClaims{"exp": "soon"}, "The JWT 'exp' claim must be a number"},
		{jwt.MapClaims{"exp": now + 60, "nbf": "x"}, "The JWT 'nbf' claim must be a number"},
		{jwt.MapClaims{"exp": now + 60, "iat": true}, "The JWT 'iat' claim must be a number"},
	} {
		c.claims["role"] = "authenticated"
		w := s.do("GET /items?limit=0", "", "Authorization", "Bearer "+sign(t, c.claims))
		if c.message == "" {
			if w.Code != http.StatusOK {
				t.Errorf("%v: %d %s", c.claims, w.Code, w.Body)
			}
			continue
		}
		wantError(t, w, http.StatusUnauthorized, "PGRST303", c.message)
	}
}

// Only roles that the login was granted are taken, whoever signed.
//
// spec: rest:AU-16 rest:AU-17
func TestRefusedRoles(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, role := range []any{"nobody", "none", "NONE", "authenticator", "postgres", "supabase_admin", `anon"; reset role; --`, " anon"} {
		w := s.do("POST /rpc/whoami", "{}", "Authorization", "Bearer "+sign(t, jwt.MapClaims{"role": role, "exp": 4102444800}))
		wantError(t, w, http.StatusUnauthorized, "22023", fmt.Sprintf("role %q does not exist", role))
	}
	for _, role := range []any{7, true, []string{"service_role"}, map[string]any{}, ""} {
		w := s.do("POST /rpc/whoami", "{}", "Authorization", "Bearer "+sign(t, jwt.MapClaims{"role": role, "exp": 4102444800}))
		if w.Code != http.StatusUnauthorized && !strings.Contains(w.Body.String(), `"user" : "anon"`) {
			t.Errorf("role %v: %d %s", role, w.Code, w.Body)
		}
	}
}

// Who revokes anon from the login has disabled anonymous access.
//
// spec: rest:AU-19
func TestAnonymousAccessDisabled(t *testing.T) {
	t.Parallel()
	s := startPrivate(t)
	s.Exec("revoke anon from authenticator")
	s.reload()
	for _, header := range [][]string{nil, {"apikey", string(token.DevPublishableKey)}, {"Authorization", "Basic eDp5"}} {
		w := s.do("GET /items", "", header...)
		wantError(t, w, http.StatusUnauthorized, "PGRST302", "Anonymous access is disabled")
		if got := w.Header().Get("WWW-Authenticate"); got != "Bearer" {
			t.Errorf("%q: WWW-Authenticate %q", header, got)
		}
	}
	wantError(t, s.do("GET /items", "", "As", "anon"), http.StatusUnauthorized, "22023", `role "anon" does not exist`)
	s.want(`200 0-0/* [{"id":1}]`, "GET /notes?select=id", "", "As", "alice")
}

// spec: rest:RT-09
func TestNoConnectionForWhatIsDecidedBefore(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rest.Config) { c.AcquireTimeout = time.Millisecond })
	for range benchConns {
		c, err := s.users.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
	}
	for line, want := range map[string]int{
		"GET /a/b/c": 404, "OPTIONS /items": 200, "GET /items?id=0": 400, "GET /nope": 404, "GET /items?select=nope(id)": 400,
		"POST /rpc/nope": 404, "DELETE /rpc/x": 405, "GET /items?limit=-1": 416, "POST /items": 400, "OPTIONS /": 200,
	} {
		if w := s.do(line, ""); w.Code != want {
			t.Errorf("%s: %d %s, want %d", line, w.Code, w.Body, want)
		}
	}
	if w := s.do("GET /items", "", "Authorization", "Bearer x"); w.Code != http.StatusUnauthorized {
		t.Errorf("bad token: %d", w.Code)
	}
}

// spec: rest:TX-22
func TestNoConnectionNoCache(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rest.Config) { c.AcquireTimeout = time.Millisecond })
	for range benchConns {
		c, err := s.users.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
	}
	wantError(t, s.do("GET /items", ""), http.StatusGatewayTimeout, "PGRST003", "Timed out acquiring connection from connection pool.")

	empty, err := schema.New(schema.Config{Admin: s.Pool("supabase_admin"), Schemas: []string{"public"}, Logger: s.logger})
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := rest.New(rest.Config{Pool: s.users, Schema: empty, Schemas: []string{"public"}, Logger: s.logger})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	fresh.ServeHTTP(w, httptest.NewRequest("GET", "/items", nil))
	wantError(t, w, http.StatusServiceUnavailable, "PGRST002", "Could not query the database for the schema cache. Retrying.")
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// spec: rest:TX-05 rest:TX-07 rest:JS-10
func TestRequestSettings(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	w := s.do("POST /rpc/setting", `{"name":"request.headers"}`, "As", "alice", "X-Custom", "Yes, 'it\" is", "Traceparent", "00-1-2-01")
	var text string
	var headers map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &text); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &headers); err != nil {
		t.Fatal(err)
	}
	if headers["x-custom"] != "Yes, 'it\" is" || headers["traceparent"] != "00-1-2-01" || !strings.HasPrefix(headers["authorization"], "Bearer ey") {
		t.Errorf("headers %v", headers)
	}
	s.want(`200 0-0/* "/rpc/setting"`, "POST /rpc/setting", `{"name":"request.path"}`)
	s.want(`200 0-0/* "POST"`, "POST /rpc/setting", `{"name":"request.method"}`)
}

// spec: rest:TX-09 rest:TX-10 rest:TX-11 rest:TX-12
func TestRoleSettings(t *testing.T) {
	t.Parallel()
	db := startPrivate(t)
	db.Exec(`alter role anon set statement_timeout = '30ms'`)
	db.Exec(`alter role anon set log_min_duration_statement = '1s'`) // anon may not set it by itself
	db.Exec(`alter role authenticated in database ` + db.Name + ` set statement_timeout = '7s'`)
	db.want(`200 0-0/* "8s"`, "GET /rpc/setting?name=statement_timeout", "", "As", "service")
	db.reload()
	db.want(`200 0-0/* "30ms"`, "GET /rpc/setting?name=statement_timeout", "")
	db.want(`200 0-0/* "7s"`, "GET /rpc/setting?name=statement_timeout", "", "As", "alice")
	wantError(t, db.do("POST /rpc/slow", "{}"), http.StatusInternalServerError, "57014", "canceling statement due to statement timeout")
	wantError(t, db.do("POST /rpc/slow_limited", "{}", "As", "alice"), http.StatusInternalServerError, "57014", "canceling statement due to statement timeout")
	db.Exec(`alter role anon set statement_timeout = '5s'`)
	db.reload()
	db.want(`200 0-0/* "5s"`, "GET /rpc/setting?name=statement_timeout", "")
}

// spec: rest:TX-03
func TestIsolation(t *testing.T) {
	t.Parallel()
	s := startPrivate(t)
	s.Exec(`create function public.level() returns text language sql stable as $$ select current_setting('transaction_isolation') $$;
create function public.own_level() returns text language sql set default_transaction_isolation = 'repeatable read' as $$ select current_setting('transaction_isolation') $$;
create table public.levels (id int primary key, level text default current_setting('transaction_isolation'));
grant all on public.levels to authenticated, anon;
alter role authenticated set default_transaction_isolation = 'serializable';`)
	s.reload()
	s.want(`200 0-0/* "read committed"`, "GET /rpc/level", "")
	s.want(`200 0-0/* "serializable"`, "GET /rpc/level", "", "As", "alice")
	s.want(`200 0-0/* "repeatable read"`, "POST /rpc/own_level", "", "As", "alice")
	s.want(`200 0-0/* "repeatable read"`, "GET /rpc/own_level", "")
	s.want(`201 */* [{"level":"serializable"}]`, "POST /levels?select=level", `{"id":1}`, "Prefer", "return=representation", "As", "alice")
	s.want(`201 */* [{"level":"read committed"}]`, "POST /levels?select=level", `{"id":2}`, "Prefer", "return=representation")
}

// spec: rest:TX-13 rest:TX-19 rest:TX-20
func TestNothingStaysOnAConnection(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.users.Reset()
	state := func() string {
		var out string
		err := s.users.QueryRow(t.Context(), `select concat_ws('|', current_user, current_setting('role'), current_setting('search_path'), current_setting('timezone'),
			current_setting('statement_timeout')) || (select string_agg(coalesce(current_setting(n, true), ''), '|') from unnest(array[
			'request.jwt.claims', 'request.headers', 'request.path', 'response.status', 'response.headers', 'sluice.inserted']) n)`).Scan(&out)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := state()
	for range 3 {
		s.do("POST /rpc/with_headers", `{"h":"[{\"X-A\":\"b\"}]","s":"418"}`, "As", "alice", "Prefer", "timezone=Asia/Tokyo")
		s.do("GET /items?select=nope", "", "As", "alice", "Prefer", "timezone=Asia/Tokyo")
		s.do("POST /tiobe", `{"name":"Go","rank":7}`, "Prefer", "resolution=merge-duplicates")
		s.do("POST /rpc/boom", "{}")
		for range benchConns {
			if after := state(); after != before {
				t.Fatalf("a connection changed\n%s\n%s", before, after)
			}
		}
		w := s.do("GET /items?id=eq.1", "")
		for k, v := range w.Header() {
			if k == "X-A" || len(v) == 0 || v[0] == "" {
				t.Errorf("header %s: %q", k, v)
			}
		}
	}
	s.want(`200 */* []`, "GET /simple", "")
}

// spec: rest:TX-18
func TestTriggersSetTheAnswer(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.before_t (id int primary key);
create table public.after_t (id int primary key);
create function public.teapot() returns trigger language plpgsql as $$
begin
  perform set_config('response.status', '418', true), set_config('response.headers', '[{"X-By":"trigger"}]', true);
  return new;
end $$;
create trigger t before insert on public.before_t for each row execute function public.teapot();
create trigger t after insert or update on public.after_t for each row execute function public.teapot();`, nil)
	for _, table := range []string{"before_t", "after_t"} {
		if w := s.do("POST /"+table, `{"id":1}`); w.Code != http.StatusTeapot || w.Header().Get("X-By") != "trigger" {
			t.Errorf("%s: %d %v", table, w.Code, w.Header())
		}
	}
	if w := s.do("PATCH /after_t", `{"id":2}`); w.Code != http.StatusTeapot {
		t.Errorf("update: %d", w.Code)
	}
}

// A status or headers that cannot be answered undo what was written, whoever set
// them: the answer is an error. What is accepted in SQL is accepted here.
func TestBadControlsUndoTheWrite(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.log (v text);
create table public.told (id int primary key, status text, headers text);
create function public.tell() returns trigger language plpgsql as $$
begin
  perform set_config('response.status', new.status, true), set_config('response.headers', new.headers, true);
  return null;
end $$;
create trigger t after insert or update on public.told for each row execute function public.tell();
create function public.write_and_tell(status text, headers text) returns int language sql as $$
  insert into public.log values (status);
  select 1 from set_config('response.status', status, true) a, set_config('response.headers', headers, true) b $$;
create function public.write_many() returns setof int language sql as $$ insert into public.log values ('many'); select generate_series(1, 3) $$;`, nil)
	body := func(v map[string]any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const statusText, headersText = "response.status guc must be a valid status code",
		"response.headers guc must be a JSON array composed of objects with a single key and a string value"
	for _, c := range []struct{ status, headers, code, message string }{
		{"tea", "", "PGRST112", statusText},
		{"99", "", "PGRST112", statusText},
		{"600", "", "PGRST112", statusText},
		{"200\n", "", "PGRST112", statusText},
		{"", `{}`, "PGRST111", headersText},
		{"", `[1]`, "PGRST111", headersText},
		{"", `[{"A":1}]`, "PGRST111", headersText},
		{"", `[{"A":"1","B":"2"}]`, "PGRST111", headersText},
		{"", `[{"A":"1"},]`, "PGRST111", headersText},
		{"", `[{"A b":"1"}]`, "PGRST111", headersText},
		{"", `[{"A":"1\r\nSet-Cookie: x"}]`, "PGRST111", headersText},
		{"", `[{"A":"\u000a"}]`, "PGRST111", headersText},
		{"", `[{"content-LENGTH":"1"}]`, "PGRST111", headersText},
		{"201", `nonsense`, "PGRST111", headersText},
	} {
		told := map[string]any{"status": c.status, "headers": c.headers}
		wantError(t, s.do("POST /rpc/write_and_tell", body(told)), http.StatusInternalServerError, c.code, c.message)
		told["id"] = 1
		wantError(t, s.do("POST /told", body(told)), http.StatusInternalServerError, c.code, c.message)
	}
	s.want(`200 */* []`, "GET /log", "")
	s.want(`200 */* []`, "GET /told", "")

	for headers, want := range map[string]string{
		`[]`: "", ` [ { "X-A" : "b" } , {"x-other":"c\"\\/\u00e9ü"} ] `: "b", `[{"X-A":"` + strings.Repeat("long ", 200) + `"}]`: strings.Repeat("long ", 200),
		`[{"X-A":"\t\/"},{"Content-Lengths":"1"}]`: "\t/", "[\n]": "",
	} {
		w := s.do("POST /rpc/write_and_tell", body(map[string]any{"status": "218", "headers": headers}))
		if w.Code != 218 || w.Header().Get("X-A") != want {
			t.Errorf("%s: %d %v %s", headers, w.Code, w.Header(), w.Body)
		}
	}

	s.Exec("truncate public.log")
	w := s.do("POST /rpc/write_many?offset=5&limit=1", "{}", "Prefer", "count=exact")
	wantError(t, w, http.StatusRequestedRangeNotSatisfiable, "PGRST103", "")
	s.want(`200 */* []`, "GET /log", "")
}

// spec: rest:TX-21 rest:JS-08
func TestAbort(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		w := httptest.NewRecorder()
		s.gateway.ServeHTTP(w, s.request("POST /rpc/slow", "{}").WithContext(ctx))
		done <- w.Code
	}()
	running := func() (n int) {
		const q = `select count(*) from pg_stat_activity where datname = current_database() and query like '%"slow"()%' and state = 'active' and pid <> pg_backend_pid()`
		if err := s.Admin().QueryRow(t.Context(), q).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for running() == 0 {
	}
	cancel()
	<-done
	for running() != 0 {
	}
	s.want(`200 0-0/* [{"id":1}]`, "GET /items?select=id&id=eq.1", "")
}

// spec: rest:SE-16
func TestExpressionIndexIsUsed(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.docs (id int primary key, js jsonb);
insert into public.docs select i, jsonb_build_object('k', 'v' || i) from generate_series(1, 5000) i;
create index docs_k on public.docs ((js ->> 'k'));
analyze public.docs;`, nil)
	for range 8 { // past the point where the plan becomes generic
		s.want(`200 0-0/* [{"id":7}]`, "GET /docs?select=id&js->>k=eq.v7", "")
	}
	var scans int
	for scans < 8 { // statistics come late
		if err := s.Admin().QueryRow(t.Context(), "select idx_scan from pg_stat_user_indexes where indexrelname = 'docs_k'").Scan(&scans); err != nil {
			t.Fatal(err)
		}
	}
}

// spec: rest:SC-05 rest:SC-07
func TestOneSchemaAndOddSchemas(t *testing.T) {
	t.Parallel()
	const odd = `ödd "$1", schema`
	s := startWith(t, `create table public.t (id int primary key); create schema "ödd ""$1"", schema";
create table "ödd ""$1"", schema".t (id int primary key, odd text default current_setting('search_path'));
grant usage on schema "ödd ""$1"", schema" to anon; grant all on all tables in schema "ödd ""$1"", schema" to anon;`, func(c *rest.Config) { c.Schemas = []string{"public"} })
	if w := s.do("GET /t", ""); w.Code != http.StatusOK || w.Header()["Content-Profile"] != nil {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	two := startWith(t, `create schema "ödd ""$1"", schema";
create table "ödd ""$1"", schema".t (id int primary key, odd text default current_setting('search_path'));
grant usage on schema "ödd ""$1"", schema" to anon; grant all on all tables in schema "ödd ""$1"", schema" to anon;`, func(c *rest.Config) { c.Schemas = []string{"public", odd} })
	w := two.want(`201 */* [{"id":1,"odd":"\"ödd \"\"$1\"\", schema\", \"public\", \"extensions\""}]`, "POST /t", `{"id":1}`, "Content-Profile", odd, "Prefer", "return=representation")
	if got := w.Header().Get("Content-Profile"); got != odd {
		t.Errorf("Content-Profile %q", got)
	}
}

// spec: rest:SC-10
func TestSystemSchemasAreNotExposed(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, name := range []string{"pg_catalog", "information_schema"} {
		if _, err := schema.New(schema.Config{Admin: s.Pool("supabase_admin"), Schemas: []string{"public", name}, Logger: s.logger}); err == nil {
			t.Errorf("%s is exposed", name)
		}
	}
}

// spec: rest:SC-04 rest:OR-20 rest:OR-21 rest:FM-04 rest:ER-01 rest:ER-02 rest:ER-09 rest:RT-01
func TestCommonHeaders(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct{ line, length, location string }{
		{"GET /items?select=id&id=lt.3", "22", "/items?id=lt.3&select=id"},
		{"GET /simple", "2", "/simple"},
		{"GET /items?order=id&id=eq.1&select=id&apikey=" + string(token.DevPublishableKey), "10", "/items?id=eq.1&order=id&select=id"},
		{"GET /rpc/add_them?b=2&a=1", "1", "/rpc/add_them?a=1&b=2"},
		{"HEAD /items?select=id&id=lt.3", "", "/items?id=lt.3&select=id"},
	} {
		w := s.do(c.line, "")
		h := w.Header()
		if h.Get("Content-Length") != c.length || h.Get("Content-Location") != c.location || h.Get("Vary") != "Accept, Prefer, Range" ||
			h.Get("Content-Type") != "application/json; charset=utf-8" || h.Get("Content-Profile") != "public" {
			t.Errorf("%s: %d %v", c.line, w.Code, h)
		}
		if strings.HasPrefix(c.line, "HEAD") && (w.Body.Len() > 0 || h.Get("Content-Range") != "0-1/*") {
			t.Errorf("%s: %s %v", c.line, w.Body, h)
		}
	}
	w := s.do("GET /a/b/c", "")
	if w.Code != 404 || w.Body.Len() != 96 || w.Header().Get("Content-Length") != "96" || w.Header().Get("Proxy-Status") != "PostgREST; error=PGRST125" {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
	w = s.do("HEAD /items?id=0", "")
	if w.Code != 400 || w.Body.Len() != 0 || w.Header().Get("Proxy-Status") != "PostgREST; error=PGRST100" {
		t.Errorf("HEAD: %d %s %v", w.Code, w.Body, w.Header())
	}
	w = s.do("POST /items", "")
	if w.Body.Len() != 80 {
		t.Errorf("empty body: %d bytes: %s", w.Body.Len(), w.Body)
	}
}

// spec: rest:OR-22 rest:OR-23 rest:PD-14
func TestMaxRows(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rest.Config) { c.MaxRows = 2 })
	s.want(`200 0-1/* [{"id":1}, {"id":2}]`, "GET /items?select=id&order=id", "")
	s.want(`200 0-1/* [{"id":1}, {"id":2}]`, "GET /items?select=id&order=id&limit=5", "")
	s.want(`200 0-0/* [{"id":1}]`, "GET /items?select=id&order=id&limit=1", "")
	s.want(`206 0-1/15 [{"id":1}, {"id":2}]`, "GET /items?select=id&order=id", "", "Prefer", "count=exact")
	s.want(`200 0-1/* [{"id":1}, {"id":2}]`, "GET /rpc/items_between?min=1&max=9&select=id&order=id", "")
	s.want(`200 0-1/* [1, 2]`, "GET /rpc/ints?n=9", "")
	s.want(`200 0-0/* [{"id":1,"likes":[{"id":1}, {"id":2}]}]`, "GET /users?select=id,likes(id)&likes.order=id&id=eq.1", "")
	s.want(`201 */* `+`[]`, "POST /items", `[]`, "Prefer", "return=representation")
	w := s.do("PATCH /items?select=id", `{"grp":1}`, "Prefer", "return=representation, count=exact")
	if w.Header().Get("Content-Range") != "0-14/15" || strings.Count(w.Body.String(), "id") != 15 {
		t.Errorf("update: %v %s", w.Header(), w.Body)
	}
}

// spec: rest:OR-16 rest:OR-17
func TestEstimatedCounts(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rest.Config) { c.MaxRows = 5 })
	s.Exec("insert into public.items select i, 0 from generate_series(16, 1000) i; analyze public.items")
	s.want(`206 0-0/1000 [{"id":1}]`, "GET /items?select=id&order=id&limit=1", "", "Prefer", "count=planned")
	s.want(`206 0-0/1000 [{"id":1}]`, "GET /items?select=id&order=id&limit=1", "", "Prefer", "count=estimated")
	s.want(`200 0-1/2 [{"id":1}, {"id":2}]`, "GET /items?select=id&order=id&id=lt.3", "", "Prefer", "count=estimated")
	s.want(`200 0-3/4 [{"id":1}, {"id":2}, {"id":3}, {"id":4}]`, "GET /items?select=id&order=id&id=lt.5", "", "Prefer", "count=estimated")
	w := s.do("HEAD /items?select=id&limit=1", "", "Prefer", "count=planned")
	if w.Header().Get("Content-Range") != "0-0/1000" || w.Header().Get("Preference-Applied") != "count=planned" {
		t.Errorf("HEAD: %v", w.Header())
	}
	s.Exec("create table public.fresh (id int); insert into public.fresh values (1); grant all on public.fresh to anon")
	s.reload()
	if w := s.do("GET /fresh", "", "Prefer", "count=planned"); w.Code != http.StatusPartialContent {
		t.Errorf("a table that was never analysed: %d %v", w.Code, w.Header())
	}
}

// spec: rest:RT-11
func TestMaterializedViewsAndForeignTables(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.Exec(`create extension file_fdw; create server far foreign data wrapper file_fdw;
create foreign table public.far (id int, name text) server far options (program 'printf "1,a\\n2,b\\n3,c\\n"', format 'csv');
grant select on public.far to anon`)
	s.reload()
	s.want(`200 0-1/* [{"name":"c"}, {"name":"b"}]`, "GET /far?select=name&id=gt.1&order=id.desc", "")
	s.want(`206 0-0/3 [{"id":1}]`, "GET /far?select=id&order=id&limit=1", "", "Prefer", "count=exact")
	s.want(`200 0-1/* [{"name":"Mercury"}, {"name":"Gemini"}]`, "GET /mat?select=name&id=in.(2,3)&order=id.desc&limit=2", "")
}

// What a client takes for the count is what stands behind the slash.
//
// spec: rest:JS-06
func TestCounts(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct{ want, line, body, prefer string }{
		{"*/2", "POST /simple", `[{"a":1},{"a":2}]`, "count=exact"},
		{"*/2", "POST /tiobe", `[{"name":"Go","rank":1},{"name":"E","rank":50}]`, "resolution=merge-duplicates, count=exact"},
		{"*/1", "POST /tiobe", `[{"name":"Go","rank":1},{"name":"F","rank":51}]`, "resolution=ignore-duplicates, count=exact"},
		{"0-1/2", "PATCH /items?id=lt.3", `{"grp":1}`, "count=exact"},
		{"*/2", "DELETE /items?id=lt.3", "", "count=exact"},
		{"0-2/3", "POST /rpc/items_between", `{"min":3,"max":5}`, "count=exact"},
		{"0-2/3", "HEAD /rpc/items_between?min=3&max=5", "", "count=exact"},
		{"0-12/13", "HEAD /items", "", "count=exact"},
	} {
		if w := s.do(c.line, c.body, "Prefer", c.prefer); w.Header().Get("Content-Range") != c.want || w.Code >= 300 {
			t.Errorf("%s: %d %v, want %s", c.line, w.Code, w.Header(), c.want)
		}
	}
}

// spec: rest:JS-07
func TestReasonPhrases(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	srv := httptest.NewServer(s.gateway)
	defer srv.Close()
	for _, c := range []struct{ want, method, path, body, prefer string }{
		{"200 OK", "GET", "/items", "", ""},
		{"201 Created", "POST", "/simple", `{"a":1}`, ""},
		{"204 No Content", "PATCH", "/simple", `{"a":1}`, ""},
		{"206 Partial Content", "GET", "/items?limit=1", "", "count=exact"},
		{"300 Multiple Choices", "GET", "/orders?select=addresses(*)", "", ""},
		{"400 Bad Request", "GET", "/items?id=0", "", ""},
		{"404 Not Found", "GET", "/nope", "", ""},
		{"405 Method Not Allowed", "GET", "/rpc/write_it", "", ""},
		{"409 Conflict", "POST", "/tiobe", `{"name":"Go"}`, ""},
		{"416 Requested Range Not Satisfiable", "GET", "/items?limit=-1", "", ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, srv.URL+"/rest/v1"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Prefer", c.prefer)
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body := drain(t, res)
		if res.Status != c.want || res.Proto != "HTTP/1.1" {
			t.Errorf("%s %s: %s %s, want %s: %s", c.method, c.path, res.Proto, res.Status, c.want, body)
		}
	}
}

// Users at once, each under row level security, never see one another's rows.
func TestConcurrentUsers(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.mine (id serial primary key, owner uuid default auth.uid(), body text);
alter table public.mine enable row level security;
create policy own on public.mine to authenticated using (owner = auth.uid()) with check (owner = auth.uid());`, nil)
	var wg sync.WaitGroup
	for g := range 12 {
		wg.Go(func() {
			sub := fmt.Sprintf("00000000-0000-4000-8000-%012d", g)
			auth := "Bearer " + sign(t, jwt.MapClaims{"role": "authenticated", "sub": sub, "exp": 4102444800})
			for i := range 15 {
				if w := s.do("POST /mine", fmt.Sprintf(`{"body":"%d"}`, i), "Authorization", auth); w.Code != http.StatusCreated {
					t.Errorf("insert: %d %s", w.Code, w.Body)
				}
				w := s.do("GET /mine?select=owner,count:body&order=id", "", "Authorization", auth, "Prefer", "count=exact")
				if n := strings.Count(w.Body.String(), sub); n != i+1 || strings.Count(w.Body.String(), "owner") != n {
					t.Errorf("user %d sees %d %s", g, n, w.Body)
				}
				if w := s.do("GET /mine", ""); w.Body.String() != "[]" {
					t.Errorf("anon sees %s", w.Body)
				}
			}
		})
	}
	wg.Wait()
}
