package auth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
)

// hooked serves Auth with functions of the test's own at points; body is PL/pgSQL
// over input, in schema hooks.
func hooked(t *testing.T, change func(*auth.Config), functions map[string]string) *stack {
	t.Helper()
	s := start(t, nil)
	s.Exec("create schema hooks; grant usage on schema hooks to supabase_auth_admin; create table hooks.calls (point text, input jsonb); grant all on hooks.calls to supabase_auth_admin")
	hooks := map[string]auth.Hook{}
	for point, body := range functions {
		s.Exec(fmt.Sprintf(`create function hooks.%[1]s(input jsonb) returns jsonb language plpgsql as $f$
			begin insert into hooks.calls values ('%[1]s', input); %[2]s end $f$`, point, body))
		hooks[point] = auth.Hook{URI: "pg-functions://postgres/hooks/" + point}
	}
	s.server = s.serve(func(c *auth.Config) {
		c.Hooks = hooks
		if change != nil {
			change(c)
		}
	})
	return s
}

// spec: auth:136
func TestTokenHook(t *testing.T) {
	t.Parallel()
	s := hooked(t, nil, map[string]string{"custom_access_token": `
		return case input -> 'claims' ->> 'email'
			when 'missing@example.com' then jsonb_build_object('claims', (input -> 'claims') - 'session_id')
			when 'type@example.com' then jsonb_build_object('claims', (input -> 'claims') || '{"exp":"soon"}')
			when 'no@example.com' then '{"error":{"http_code":403,"message":"members only"}}'
			when 'bare@example.com' then '{"error":{"message":"no status"}}'
			when 'null@example.com' then null
			else jsonb_build_object('claims', (input -> 'claims') || '{"team":"blue","aud":["authenticated"]}')
		end;`})
	in := s.signUp("a@example.com")
	claims := in.claims()
	same(t, "claim", claims["team"], any("blue"))
	same(t, "aud", claims["aud"], any("authenticated"))
	same(t, "exp", claims["exp"], any(float64(s.clock.now().Unix()+3600)))
	s.do("GET", "/user", nil, as(in.access())).ok(200)
	same(t, "after a refresh", s.renew(in.refresh()).ok(200).claims()["team"], any("blue"))
	same(t, "methods", s.text("select string_agg(input ->> 'authentication_method', ' ') from hooks.calls"), "password token_refresh")
	same(t, "user_id", s.text("select distinct input ->> 'user_id' from hooks.calls"), in.id())

	refused := func(email string) *reply {
		return s.do("POST", "/signup", object{"email": email, "password": password})
	}
	refused("missing@example.com").refused(500, "unexpected_failure", "output claims do not conform to the expected schema: session_id is missing or of another type")
	refused("type@example.com").refused(500, "unexpected_failure", "output claims do not conform to the expected schema: exp is missing or of another type")
	refused("no@example.com").refused(403, "unknown", "members only")
	refused("bare@example.com").refused(500, "unknown", "no status")
	refused("null@example.com").ok(200)
	// A refusal leaves nothing: neither user nor session nor a used code.
	same(t, "users", s.count("select count(*) from auth.users"), 2)
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 2)
	s.Exec("update auth.users set email = 'no@example.com' where email = 'a@example.com'")
	s.login("no@example.com", password).refused(403, "unknown", "members only")
	same(t, "no session of a refused sign-in", s.count("select count(*) from auth.sessions"), 2)
	s.do("POST", "/otp", object{"email": "no@example.com"}).ok(200)
	code := s.letter("no@example.com").code
	verify := object{"type": "email", "email": "no@example.com", "token": code}
	s.do("POST", "/verify", verify).refused(403, "unknown", "members only")
	s.Exec(`create or replace function hooks.custom_access_token(input jsonb) returns jsonb language sql as 'select input'`)
	s.do("POST", "/verify", verify).ok(200)
}

// spec: auth:138
func TestUserHooks(t *testing.T) {
	t.Parallel()
	s := hooked(t, func(c *auth.Config) { c.EnableAnonymous = true }, map[string]string{
		"before_user_created": `return case when input -> 'user' ->> 'email' like '%@example.com' then '{}' else '{"error":{"http_code":422,"message":"not here"}}' end::jsonb;`,
		"after_user_created":  `return '{}';`,
	})
	for path, option := range map[string]option{
		"/signup": with("x", "y"), "/otp": with("x", "y"), "/invite": admin, "/admin/users": admin, "/admin/generate_link": admin,
	} {
		body := object{"email": "a@evil.example", "password": password, "type": "signup"}
		s.do("POST", path, body, option).refused(422, "unknown", "not here")
		body["email"] = "user" + strings.ReplaceAll(path, "/", "") + "@example.com"
		s.do("POST", path, body, option).ok(200)
	}
	s.do("POST", "/signup", object{}).refused(422, "unknown", "not here")
	same(t, "users", s.count("select count(*) from auth.users"), 5)
	same(t, "made", s.count("select count(distinct input -> 'user' ->> 'id') from hooks.calls where point = 'after_user_created'"), 5)
	same(t, "told once", s.count("select count(*) from hooks.calls where point = 'after_user_created'"), 5)
	same(t, "metadata", s.count("select count(*) from hooks.calls where input -> 'metadata' ->> 'ip_address' = '192.0.2.1' and input -> 'metadata' ->> 'uuid' <> ''"), 10)
}

// spec: auth:137
func TestVerificationHooks(t *testing.T) {
	t.Parallel()
	s := hooked(t, withTOTP, map[string]string{
		"password_verification_attempt": `return case when (select count(*) from hooks.calls c where c.point = 'password_verification_attempt' and not (c.input ->> 'valid')::bool) > 1
			then '{"decision":"reject","message":"too often","should_logout_user":true}' else '{"decision":"continue"}' end::jsonb;`,
		"mfa_verification_attempt": `return case when (input ->> 'valid')::bool then '{"decision":"continue"}' else '{"decision":"reject"}' end::jsonb;`,
	})
	in := s.signUp("a@example.com")
	s.login("a@example.com", "wrong").refused(400, "invalid_credentials", "Invalid login credentials")
	s.login("nobody@example.com", "wrong").ok(400)
	s.login("a@example.com", password).ok(200)
	s.login("a@example.com", "wrong").refused(400, "invalid_credentials", "too often")
	s.login("a@example.com", password).refused(400, "invalid_credentials", "too often")
	s.do("GET", "/user", nil, as(in.access())).refused(403, "session_not_found", "Session from session_id claim in JWT does not exist")

	other := s.signUp("b@example.com")
	a := s.enroll(other.access(), "phone")
	s.stepUp(other.access(), a)
	s.verifyFactor(other.access(), a, s.challenge(other.access(), a), "wrong").
		refused(403, "mfa_verification_rejected", "Further MFA verification attempts will be rejected.")
	s.do("GET", "/user", nil, as(other.access())).ok(403)
}

// endpoint is a hook's server: it keeps what it was asked.
type endpoint struct {
	mu     sync.Mutex
	calls  []object
	header http.Header
	raw    []byte
	answer func(w http.ResponseWriter, n int)
	url    string
}

func newEndpoint(t *testing.T) *endpoint {
	e := &endpoint{answer: func(w http.ResponseWriter, _ int) { w.WriteHeader(204) }}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.raw, _ = io.ReadAll(r.Body)
		var body object
		if err := json.Unmarshal(e.raw, &body); err != nil {
			t.Errorf("request %s: %v", e.raw, err)
		}
		e.calls, e.header = append(e.calls, body), r.Header
		e.answer(w, len(e.calls))
	}))
	t.Cleanup(srv.Close)
	e.url = srv.URL
	return e
}

// answers changes the answer and forgets the calls.
func (e *endpoint) answers(answer func(w http.ResponseWriter, n int)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls, e.answer = nil, answer
}

func (e *endpoint) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.calls)
}

func (e *endpoint) last() object {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls[len(e.calls)-1]
}

var hookKeys = []string{"Zmlyc3Qga2V5", "c2Vjb25kIGtleQ=="}

const hookSecrets = "v1,whsec_Zmlyc3Qga2V5|v1,whsec_c2Vjb25kIGtleQ=="

// spec: auth:139
func TestMailHook(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	s := start(t, func(c *auth.Config) {
		c.EmailAutoconfirm = false
		c.Hooks = map[string]auth.Hook{"send_email": {URI: e.url, Secrets: hookSecrets}}
	})
	s.do("POST", "/signup?redirect_to=https://app.example.com/x", object{"email": "a@example.com", "password": password}).ok(200)
	s.noLetter()
	got := e.last()
	data := got["email_data"].(object)
	same(t, "data", data, object{
		"token": data["token"], "token_hash": data["token_hash"], "token_new": "", "token_hash_new": "", "redirect_to": "https://app.example.com/x",
		"email_action_type": "signup", "site_url": issuer, "old_email": "", "old_phone": "", "provider": "", "factor_type": "",
	})
	same(t, "user", got["user"].(object)["email"], any("a@example.com"))
	same(t, "hash", data["token_hash"], any(auth.HashCode(s.keys, "a@example.com", data["token"].(string))))
	same(t, "time", e.header.Get("webhook-timestamp"), fmt.Sprint(s.clock.now().Unix()))
	var signed []string
	for _, key := range hookKeys {
		secret, _ := base64.StdEncoding.DecodeString(key)
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%s.%s", e.header.Get("webhook-id"), e.header.Get("webhook-timestamp"), e.raw)
		signed = append(signed, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	same(t, "signature", e.header.Get("webhook-signature"), strings.Join(signed, " "))
	in := s.do("POST", "/verify", object{"type": "signup", "email": "a@example.com", "token": data["token"]}).ok(200)

	// One call for both addresses, the names crossed.
	s.do("PUT", "/user", object{"email": "b@example.com"}, as(in.access())).ok(200)
	data = e.last()["email_data"].(object)
	same(t, "calls", e.count(), 2)
	same(t, "type", data["email_action_type"], any("email_change"))
	same(t, "current", data["token_hash_new"], any(auth.HashCode(s.keys, "a@example.com", data["token"].(string))))
	same(t, "new", data["token_hash"], any(auth.HashCode(s.keys, "b@example.com", data["token_new"].(string))))
	s.do("POST", "/verify", object{"type": "email_change", "email": "a@example.com", "token": data["token"]}).ok(200)
	r := s.do("POST", "/verify", object{"type": "email_change", "email": "b@example.com", "token": data["token_new"]}).ok(200)
	same(t, "email", r.str("user.email"), "b@example.com")

	// What the hook refuses is not stored.
	e.answers(func(w http.ResponseWriter, _ int) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"error":{"http_code":429,"message":"later"}}`)
	})
	s.do("POST", "/signup", object{"email": "c@example.com", "password": password}).refused(429, "unknown", "later")
	same(t, "users", s.count("select count(*) from auth.users"), 1)
}

func TestHookTransport(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	s := start(t, func(c *auth.Config) {
		c.EmailAutoconfirm, c.MailInterval = false, 0
		c.Hooks = map[string]auth.Hook{"send_email": {URI: e.url, Secrets: hookSecrets}}
	})
	s.server.NoHookPause()
	ask := func(answer func(w http.ResponseWriter, n int)) *reply {
		e.answers(answer)
		return s.do("POST", "/otp", object{"email": "a@example.com"})
	}
	again := func(w http.ResponseWriter) { w.Header().Set("Retry-After", "true"); w.WriteHeader(503) }
	ask(func(w http.ResponseWriter, n int) {
		if n < 3 {
			again(w)
		} else {
			w.WriteHeader(204)
		}
	}).ok(200)
	same(t, "tries", e.count(), 3)
	ask(func(w http.ResponseWriter, _ int) { again(w) }).refused(422, "hook_timeout_after_retry", "Failed to reach hook after maximum retries")
	same(t, "tries", e.count(), 3)
	ask(func(w http.ResponseWriter, _ int) { w.WriteHeader(500) }).refused(500, "unexpected_failure", "Error running hook")
	same(t, "tries", e.count(), 1)
	ask(func(w http.ResponseWriter, _ int) {
		http.Redirect(w, &http.Request{}, "http://127.0.0.1:1/", http.StatusFound)
	}).ok(500)
	ask(func(w http.ResponseWriter, _ int) { fmt.Fprint(w, "hello") }).refused(400, "hook_payload_invalid_content_type", `Invalid Content-Type in hook response: "text/plain"`)
	json := func(text string) func(http.ResponseWriter, int) {
		return func(w http.ResponseWriter, _ int) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, text)
		}
	}
	ask(json(`{"a":"`+strings.Repeat("x", 200<<10)+`"}`)).refused(422, "hook_payload_over_size_limit", "Payload size exceeded size limit of 200 KB")
	ask(json(`{`)).refused(500, "unexpected_failure", "Error running hook")
	ask(json(`{"error":null}`)).ok(200)
	ask(json(``)).ok(200)
}

// spec: auth-sec:45
func TestHookNames(t *testing.T) {
	t.Parallel()
	s := hooked(t, nil, map[string]string{"custom_access_token": `perform pg_sleep(30); return input;`})
	s.do("POST", "/signup", object{"email": "a@example.com", "password": password}).
		refused(422, "hook_timeout", "Failed to reach hook within maximum time of 5 seconds")
	for _, uri := range []string{
		"", "x", "ftp://example.com", "http://example.com/hook", "https://", "pg-functions://postgres/public", "pg-functions://postgres/a/b/c",
		`pg-functions://postgres/public/f(1);drop`, "pg-functions://postgres/public/1f", "pg-functions://postgres/public/" + strings.Repeat("a", 64),
	} {
		_, err := auth.New(auth.Config{
			Pool: s.Pool("supabase_auth_admin"), Keys: s.keys, Logger: slog.New(slog.DiscardHandler), ExternalURL: issuer,
			Hooks: map[string]auth.Hook{"send_email": {URI: uri, Secrets: hookSecrets}},
		})
		if err == nil {
			t.Errorf("%q is accepted", uri)
		}
	}
	for _, secrets := range []string{"", "plain", "v1,whsec_", "v1,whsec_!", "v1,whsec_Zmlyc3Qga2V5|"} {
		_, err := auth.New(auth.Config{
			Pool: s.Pool("supabase_auth_admin"), Keys: s.keys, Logger: slog.New(slog.DiscardHandler), ExternalURL: issuer,
			Hooks: map[string]auth.Hook{"custom_access_token": {URI: "https://example.com", Secrets: sluice.Secret(secrets)}},
		})
		if err == nil || strings.Contains(err.Error(), "Zmly") {
			t.Errorf("secrets %q: %v", secrets, err)
		}
	}
}

func FuzzHook(f *testing.F) {
	f.Add("pg-functions://postgres/public/f", "", `{"claims":{"aud":["x"],"exp":1}}`)
	f.Add("https://example.com/x", "v1,whsec_YQ==|v1,whsec_Yg==", `{"error":{"http_code":999,"message":"x"}}`)
	f.Add("http://localhost:1", "v1,whsec_", `[]`)
	f.Fuzz(func(t *testing.T, uri, secrets, answer string) {
		if auth.HookOK(uri, secrets) && strings.HasPrefix(uri, "pg-functions") && strings.ContainsAny(uri, ";\"'()") && !strings.ContainsAny(uri, "?#@") {
			if host, _, _ := strings.Cut(strings.TrimPrefix(uri, "pg-functions://"), "/"); !strings.ContainsAny(host, ";\"'()") {
				t.Fatalf("%q is taken", uri)
			}
		}
		if status := auth.ReadHook([]byte(answer)); status != 0 && (status < 400 || status > 599) {
			t.Fatalf("%q answers %d", answer, status)
		}
	})
}

func FuzzAuditQuery(f *testing.F) {
	for _, seed := range []string{"", "action:login", "author:", "type:%_", "x:y", ":"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		column, pattern, err := auth.AuditQuery(query)
		if err == nil && (column == "") != (pattern == "") {
			t.Fatalf("%q becomes %q, %q", query, column, pattern)
		}
	})
}
