package auth_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/auth"
)

// spec: auth:147
func TestMailLimit(t *testing.T) {
	t.Parallel()
	limited := func(c *auth.Config) { c.EmailAutoconfirm, c.MailInterval, c.RateLimits.Email = false, 0, 3 }
	s := start(t, limited)
	nodes := []*auth.Server{s.server, s.serve(limited)} // the limit is of both together
	ask := func(n int, email string) *reply {
		return s.doOn(nodes[n%2], "POST", "/signup", object{"email": email, "password": password})
	}
	for i := range 3 {
		ask(i, string(rune('a'+i))+"@example.com").ok(200)
	}
	ask(3, "d@example.com").refused(429, "over_email_send_rate_limit", "email rate limit exceeded")
	same(t, "users", s.count("select count(*) from auth.users"), 3)
	same(t, "mails", len(s.letters()), 3)
	s.clock.pass(20 * time.Minute)
	ask(4, "d@example.com").ok(200)
	ask(5, "e@example.com").ok(429)
	// It does not count where new addresses need no mail.
	auto := s.serve(func(c *auth.Config) { c.RateLimits.Email, c.MailInterval = 1, 0 })
	for range 3 {
		s.doOn(auto, "POST", "/otp", object{"email": "x@example.com"}).ok(200)
	}
}

// spec: auth:146
func TestRequestLimitOfVerify(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.RateLimits = auth.RateLimits{Verify: 30, SignInSignUp: 30} })
	from := func(ip string) option { return func(r *http.Request) { r.RemoteAddr = ip + ":1234" } }
	verify := func(server *auth.Server, i int, ip string) *reply {
		if i%2 == 0 {
			return s.doOn(server, "GET", "/verify?type=signup&token=x", nil, from(ip))
		}
		return s.doOn(server, "POST", "/verify", object{"type": "signup", "token_hash": "x"}, from(ip))
	}
	for i := range 30 {
		if r := verify(s.server, i, "192.0.2.1"); r.status != 303 && r.status != 403 {
			t.Fatalf("request %d: %d %s", i, r.status, r.text)
		}
	}
	verify(s.server, 0, "192.0.2.1").refused(429, "over_request_rate_limit", "Request rate limit reached")
	verify(s.server, 1, "192.0.2.1").refused(429, "over_request_rate_limit", "Request rate limit reached")
	verify(s.server, 1, "192.0.2.2").ok(403)
	s.clock.pass(10 * time.Second)
	verify(s.server, 1, "192.0.2.1").ok(403)
	free := s.serve(nil)
	for i := range 40 {
		if r := verify(free, i, "192.0.2.1"); r.status == 429 {
			t.Fatal("limited in development")
		}
	}
	for _, path := range []string{"/otp", "/magiclink", "/recover", "/resend"} {
		for range 30 {
			s.do("POST", path, "{", from("192.0.2.9")).ok(400)
		}
		s.do("POST", path, "{", from("192.0.2.9")).refused(429, "over_request_rate_limit", "Request rate limit reached")
	}
}

// spec: auth:123
func TestAuditLog(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	step := func() { s.clock.pass(2 * time.Second) }
	in := s.signUp("a@example.com")
	step()
	s.do("POST", "/recover", object{"email": "a@example.com"}).ok(200)
	step()
	s.do("GET", "/reauthenticate", nil, as(in.access())).ok(200)
	step()
	s.do("PUT", "/user", object{"data": object{"x": 1}}, as(in.access())).ok(200)
	step()
	s.do("POST", "/logout", nil, as(in.access())).ok(204)
	step()
	s.do("POST", "/invite", object{"email": "b@example.com"}, admin).ok(200)
	step()
	s.do("DELETE", "/admin/users/"+in.id(), nil, admin).ok(200)

	list := func(query string) ([]any, *reply) {
		t.Helper()
		r := s.do("GET", "/admin/audit"+query, nil, admin).ok(200)
		// The answer is an array.
		wrapped := s.decode(r)
		return wrapped, r
	}
	all, r := list("")
	var got []string
	types := map[string]string{}
	for _, e := range all {
		payload := e.(object)["payload"].(object)
		got = append(got, payload["action"].(string))
		types[payload["action"].(string)] = payload["log_type"].(string)
	}
	if strings.Join(got[:6], " ") != "user_deleted user_invited logout user_modified user_reauthenticate_requested user_recovery_requested" || len(got) != 8 {
		t.Errorf("actions %v", got)
	}
	same(t, "types", types, map[string]string{
		"user_deleted": "team", "user_invited": "team", "logout": "account", "user_modified": "user", "user_reauthenticate_requested": "user",
		"user_recovery_requested": "user", "login": "account", "user_signedup": "team",
	})
	same(t, "total", r.header.Get("X-Total-Count"), "8")
	first := all[0].(object)
	same(t, "admin", []any{first["payload"].(object)["actor_id"], first["payload"].(object)["actor_username"]}, []any{"00000000-0000-0000-0000-000000000000", "service_role"})
	if first["id"] == "" || first["created_at"] != "2026-05-01T12:00:12Z" || first["ip_address"] != "192.0.2.1" {
		t.Errorf("entry %v", first)
	}
	page, r := list("?page=2&per_page=3")
	same(t, "second page", page[0].(object)["payload"].(object)["action"], any("user_modified"))
	same(t, "Link", r.header.Get("Link"), `</admin/audit?page=3&per_page=3>; rel="next", </admin/audit?page=3&per_page=3>; rel="last"`)
	for query, n := range map[string]int{"action:logout": 1, "type:team": 3, "author:A@example": 6, "author:": 8, "action:%25": 0} {
		found, _ := list("?query=" + query)
		same(t, query, len(found), n)
	}
	for _, bad := range []string{"logout", "odd:x"} {
		s.do("GET", "/admin/audit?query="+bad, nil, admin).refused(400, "validation_failed", "Invalid query scope: "+bad)
	}
	s.do("GET", "/admin/audit", nil).refused(403, "not_admin", "User not allowed")
}

func TestCleanUp(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.RefreshTokenVersion, c.SessionTimebox = 1, time.Hour })
	in := s.signUp("a@example.com")
	s.renew(in.refresh()).ok(200)
	s.do("POST", "/otp", pkce(object{"email": "a@example.com"})).ok(200)
	s.Exec(`insert into auth.mfa_factors (id, user_id, factor_type, status, created_at, updated_at)
		select gen_random_uuid(), id, 'totp', 'unverified', created_at, created_at from auth.users`)
	s.Exec(`insert into auth.mfa_challenges (id, factor_id, created_at, ip_address) select gen_random_uuid(), id, created_at, '::1' from auth.mfa_factors`)
	tables := []string{"auth.refresh_tokens", "auth.sessions", "auth.flow_state", "auth.one_time_tokens", "auth.mfa_factors", "auth.mfa_challenges", "sluice.auth_limits"}
	counts := func() (n []int) {
		t.Helper()
		if err := s.server.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, table := range tables {
			n = append(n, s.count("select count(*) from "+table))
		}
		return n
	}
	same(t, "at once", counts(), []int{2, 1, 1, 1, 1, 1, 1})
	s.clock.pass(2 * time.Second)
	same(t, "later", counts(), []int{2, 1, 1, 1, 1, 1, 0})
	s.clock.pass(26 * time.Hour)
	same(t, "a day later", counts(), []int{0, 0, 0, 0, 0, 0, 0})
	same(t, "users", s.count("select count(*) from auth.users"), 1)
}
