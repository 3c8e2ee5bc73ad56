package auth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	verifier  = strings.Repeat("verifier", 7)
	challenge = func() string {
		sum := sha256.Sum256([]byte(verifier))
		return base64.RawURLEncoding.EncodeToString(sum[:])
	}()
)

// pkce adds the pair to a body.
func pkce(body object) object {
	body["code_challenge"], body["code_challenge_method"] = challenge, "s256"
	return body
}

func (s *stack) exchange(code, verifier string) *reply {
	s.t.Helper()
	return s.do("POST", "/token?grant_type=pkce", object{"auth_code": code, "code_verifier": verifier})
}

// spec: auth:104 auth:105 auth:110
func TestPKCE(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	for _, c := range []struct{ path, method string }{
		{"/signup", "email/signup"}, {"/otp", "magiclink"}, {"/recover", "recovery"}, {"/resend", "email/signup"},
	} {
		s.clock.pass(time.Minute)
		body := object{"email": "a@example.com", "password": password}
		if c.path == "/resend" {
			s.do("POST", "/signup", object{"email": "b@example.com", "password": password}).ok(200)
			s.letter("b@example.com")
			s.clock.pass(time.Minute)
			body = object{"email": "b@example.com", "type": "signup"}
		}
		s.do("POST", c.path+"?redirect_to=https://app.example.com/cb?x=1", pkce(body)).ok(200)
		l := s.letter(body["email"].(string))
		if !strings.HasPrefix(l.hash(t), "pkce_") {
			t.Fatalf("%s: token %q", c.path, l.hash(t))
		}
		at := s.follow(l.link)
		code := at.query.Get("code")
		same(t, c.path, at.whole, "https://app.example.com/cb?code="+code+"&x=1")
		s.exchange(code, "x"+verifier).refused(400, "bad_code_verifier", "code challenge does not match previously saved code verifier")
		r := s.exchange(code, verifier).ok(200)
		same(t, "amr", r.claims()["amr"].([]any)[0].(object)["method"], any(c.method))
		same(t, "email", r.str("user.email"), body["email"].(string))
		s.do("GET", "/user", nil, as(r.access())).ok(200)
		s.exchange(code, verifier).refused(404, "flow_state_not_found", "invalid flow state, no valid flow state found")
	}
	same(t, "flows", s.count("select count(*) from auth.flow_state"), 0)

	// The digits and the hash of such a mail are answered with a session at once.
	for _, byCode := range []bool{true, false} {
		s.clock.pass(time.Minute)
		s.do("POST", "/otp", pkce(object{"email": "a@example.com"})).ok(200)
		l := s.letter("a@example.com")
		body := object{"type": "email", "token_hash": l.hash(t)}
		if byCode {
			body = object{"type": "email", "email": "a@example.com", "token": l.code}
		}
		s.do("POST", "/verify", body).ok(200)
	}
}

// spec: auth:106
func TestPKCEExchangeRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.signUp("a@example.com")
	const both = "invalid request: both auth code and code verifier should be non-empty"
	s.exchange("", verifier).refused(400, "validation_failed", both)
	s.exchange("x", "").refused(400, "validation_failed", both)
	ask := func() string {
		s.clock.pass(time.Minute)
		s.do("POST", "/otp", pkce(object{"email": "a@example.com"})).ok(200)
		l := s.letter("a@example.com")
		s.clock.pass(59 * time.Minute) // the code counts from when it was issued
		return s.follow(l.link).query.Get("code")
	}
	code := ask()
	s.clock.pass(5 * time.Minute)
	s.exchange(code, verifier).ok(200)
	code = ask()
	s.clock.pass(5*time.Minute + time.Second)
	s.exchange(code, verifier).refused(422, "flow_state_expired", "invalid flow state, flow state has expired")

	// A code that no login has handed out is none.
	s.do("POST", "/otp", pkce(object{"email": "a@example.com"})).ok(200)
	s.exchange(s.text("select auth_code from auth.flow_state order by created_at desc limit 1"), verifier).ok(404)
	s.letter("a@example.com")

	code = ask()
	s.do("PUT", "/admin/users/"+s.text("select id::text from auth.users"), object{"ban_duration": "1h"}, admin).ok(200)
	s.exchange(code, verifier).refused(403, "user_banned", "User is banned")
	s.Exec("delete from auth.users")
	s.exchange(code, verifier).ok(404)
}

// spec: auth:107 auth:108 auth-sec:29
func TestPKCEParametersEverywhere(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	for _, call := range []struct {
		method, path string
		body         object
		who          option
	}{
		{"POST", "/signup", object{"email": "b@example.com", "password": password}, with("x", "y")},
		{"POST", "/otp", object{"email": "a@example.com"}, with("x", "y")},
		{"POST", "/magiclink", object{"email": "a@example.com"}, with("x", "y")},
		{"POST", "/recover", object{"email": "a@example.com"}, with("x", "y")},
		{"POST", "/resend", object{"email": "a@example.com", "type": "signup"}, with("x", "y")},
		{"PUT", "/user", object{"email": "c@example.com"}, as(in.access())},
	} {
		for _, c := range []struct{ method, challenge, message string }{
			{"s256", strings.Repeat("a", 42), "code challenge has to be between 43 and 128 characters"},
			{"s256", strings.Repeat("a", 129), "code challenge has to be between 43 and 128 characters"},
			{"s256", strings.Repeat("a", 42) + "!", "code challenge can only contain alphanumeric characters, hyphens, periods, underscores and tildes"},
			{"", challenge, "PKCE flow requires code_challenge_method and code_challenge"},
			{"s256", "", "PKCE flow requires code_challenge_method and code_challenge"},
			{"s512", challenge, "code_challenge_method must be s256 or plain"},
		} {
			call.body["code_challenge"], call.body["code_challenge_method"] = c.challenge, c.method
			s.do(call.method, call.path, call.body, call.who).refused(400, "validation_failed", c.message)
		}
	}
	s.noLetter()
	for _, c := range []struct{ method, challenge, verifier string }{
		{"S256", challenge, verifier},
		{"s256", challenge, verifier},
		{"plain", verifier, verifier},
		{"PLAIN", strings.Repeat("~", 128), strings.Repeat("~", 128)},
	} {
		s.clock.pass(time.Minute)
		s.do("POST", "/otp", object{"email": "a@example.com", "code_challenge": c.challenge, "code_challenge_method": c.method}).ok(200)
		code := s.follow(s.letter("a@example.com").link).query.Get("code")
		s.exchange(code, c.verifier).ok(200)
	}
}

// spec: auth:109
func TestPKCEErrorRedirect(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	at := s.follow(issuer + "/verify?token=pkce_deadbeef&type=signup&redirect_to=https://app.example.com/cb?x=1")
	const values = "error=access_denied&error_code=otp_expired&error_description=Email+link+is+invalid+or+has+expired"
	same(t, "Location", at.whole, "https://app.example.com/cb?"+values+"&x=1#"+values+"&sb=")
}

func TestParallelExchange(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.signUp("a@example.com")
	s.do("POST", "/otp", pkce(object{"email": "a@example.com"})).ok(200)
	code := s.follow(s.letter("a@example.com").link).query.Get("code")
	var wg sync.WaitGroup
	status := make([]int, 12)
	for i := range status {
		wg.Go(func() { status[i] = s.exchange(code, verifier).status })
	}
	wg.Wait()
	good := 0
	for _, code := range status {
		if code == 200 {
			good++
		} else if code != 404 {
			t.Errorf("status %d", code)
		}
	}
	same(t, "accepted", good, 1)
}
