package auth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-dev/sluice/auth"
)

// spec: auth-sec:55
func TestCaptcha(t *testing.T) {
	t.Parallel()
	const secret = "captcha secret"
	var asked atomic.Int64
	var answer atomic.Value
	answer.Store("")
	hold := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.PostFormValue("secret") != secret || r.PostFormValue("remoteip") != "192.0.2.1" {
			t.Errorf("asked with %v", r.PostForm)
		}
		switch own := answer.Load().(string); {
		case own == "hang":
			<-hold
		case own != "":
			w.WriteHeader(500)
			fmt.Fprint(w, own)
		case r.PostFormValue("response") == "solved":
			fmt.Fprint(w, `{"success":true}`)
		default:
			fmt.Fprint(w, `{"success":false,"error-codes":["invalid-input-response","timeout-or-duplicate"]}`)
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(hold) })
	s := start(t, func(c *auth.Config) {
		c.Captcha = auth.Captcha{Provider: "turnstile", Secret: secret, URL: srv.URL}
		c.EnableAnonymous = true
	})
	token := func(text string) object { return object{"captcha_token": text} }
	body := func(security any) object {
		return object{"email": "a@example.com", "password": password, "type": "signup", "gotrue_meta_security": security}
	}
	for _, path := range []string{"/signup", "/token?grant_type=password", "/otp", "/magiclink", "/recover", "/resend"} {
		for _, empty := range []any{nil, object{}, token(""), token(" ")} {
			s.do("POST", path, body(empty)).refused(400, "captcha_failed", "captcha protection: request disallowed (no captcha_token found)")
		}
		s.do("POST", path, body(token("wrong"))).refused(400, "captcha_failed", "captcha protection: request disallowed (invalid-input-response, timeout-or-duplicate)")
		s.do("POST", path, `{`).ok(400)
	}
	same(t, "users", s.count("select count(*) from auth.users"), 0)
	in := s.do("POST", "/signup", body(token("solved"))).ok(200)
	s.login("a@example.com", password).ok(400)
	s.do("POST", "/token?grant_type=password", body(token("solved"))).ok(200)
	s.do("POST", "/recover", body(token("solved"))).ok(200)
	s.do("POST", "/signup", object{"gotrue_meta_security": token("solved")}).ok(200)

	// What needs none: refreshes, codes, administrators.
	before := asked.Load()
	s.renew(in.refresh()).ok(200)
	s.do("POST", "/verify", object{"type": "signup", "email": "a@example.com", "token": "1"}).ok(403)
	s.do("POST", "/signup", object{"email": "b@example.com", "password": password}, admin).ok(200)
	same(t, "asked", asked.Load(), before)

	// A service that answers nonsense, or not at all, lets nobody pass.
	answer.Store("<html>")
	s.do("POST", "/otp", body(token("solved"))).refused(500, "unexpected_failure", "captcha verification process failed")
	answer.Store(`{"success":true}`) // with status 500
	s.do("POST", "/otp", body(token("solved"))).refused(400, "captcha_failed", "captcha protection: request disallowed (unknown)")
	answer.Store("hang")
	s.server = s.serve(func(c *auth.Config) {
		c.Captcha = auth.Captcha{Provider: "hcaptcha", Secret: secret, URL: srv.URL}
		c.RequestTimeout = 1
	})
	s.do("POST", "/otp", body(token("solved"))).refused(500, "unexpected_failure", "captcha verification process failed")
	if strings.Contains(s.log.String(), secret) || strings.Contains(s.log.String(), "solved") {
		t.Error("the log holds secret or token")
	}
}
