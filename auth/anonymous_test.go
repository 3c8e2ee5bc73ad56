package auth_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/auth"
)

func startAnonymous(t *testing.T, change func(*auth.Config)) *stack {
	return start(t, func(c *auth.Config) {
		c.EnableAnonymous = true
		if change != nil {
			change(c)
		}
	})
}

// spec: auth:36 auth:38
func TestAnonymousSignIn(t *testing.T) {
	t.Parallel()
	s := startAnonymous(t, nil)
	r := s.do("POST", "/signup", object{"data": object{"name": "x"}, "gotrue_meta_security": object{}}).ok(200)
	user := r.at("user").(object)
	for field, want := range map[string]any{
		"is_anonymous": true, "email": "", "phone": "", "identities": []any{}, "app_metadata": object{}, "role": "authenticated",
		"user_metadata": object{"name": "x"},
	} {
		same(t, field, user[field], want)
	}
	claims := r.claims()
	same(t, "claim is_anonymous", claims["is_anonymous"], any(true))
	same(t, "claim role", claims["role"], any("authenticated"))
	same(t, "method", claims["amr"].([]any)[0].(object)["method"], any("anonymous"))
	s.do("GET", "/user", nil, as(r.access())).ok(200)
	s.renew(r.refresh()).ok(200)
	s.do("POST", "/signup", object{"email": "", "phone": nil, "password": "x"}).ok(200)
}

// spec: auth:37
func TestAnonymousDisabled(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnableSignup = false })
	s.do("POST", "/signup", object{}).refused(422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled")
}

// spec: auth:39
func TestAnonymousBecomesPermanent(t *testing.T) {
	t.Parallel()
	s := startAnonymous(t, nil)
	in := s.do("POST", "/signup", object{}).ok(200)
	r := s.do("PUT", "/user", object{"email": "Me@example.com", "password": password}, as(in.access())).ok(200)
	same(t, "id", r.str("id"), in.id())
	same(t, "is_anonymous", r.at("is_anonymous"), any(false))
	same(t, "email", r.str("email"), "me@example.com")
	same(t, "identity", r.str("identities.0.provider"), "email")
	same(t, "identity's address", r.str("identities.0.email"), "me@example.com")
	same(t, "app_metadata", r.at("app_metadata"), any(object{"provider": "email", "providers": []any{"email"}}))
	same(t, "id by password", s.login("me@example.com", password).ok(200).id(), in.id())
	same(t, "next token", s.renew(in.refresh()).ok(200).claims()["is_anonymous"], any(false))
}

// spec: auth:41 auth:42
func TestAnonymousLimits(t *testing.T) {
	t.Parallel()
	s := startAnonymous(t, nil)
	in := s.do("POST", "/signup", object{}).ok(200)
	s.do("PUT", "/user", object{"password": password}, as(in.access())).
		refused(422, "validation_failed", "Updating password of an anonymous user without an email or phone is not allowed")
	s.do("POST", "/factors", object{"factor_type": "totp"}, as(in.access())).
		refused(403, "no_authorization", "Anonymous user not allowed to perform these actions")
	s.do("GET", "/reauthenticate", nil, as(in.access())).
		refused(400, "validation_failed", "Reauthentication requires the user to have an email or a phone number")
}

// Without autoconfirm an address is proved by mail, which may be impossible.
func TestAnonymousWithoutMail(t *testing.T) {
	t.Parallel()
	s := startAnonymous(t, func(c *auth.Config) { c.EmailAutoconfirm, c.Mailer = false, nil })
	in := s.do("POST", "/signup", object{}).ok(200)
	s.do("PUT", "/user", object{"email": "me@example.com", "data": object{"a": 1}}, as(in.access())).
		refused(500, "unexpected_failure", "Error sending email change email")
	r := s.do("GET", "/user", nil, as(in.access())).ok(200)
	same(t, "nothing is stored", r.at("user_metadata"), any(object{}))
}

// spec: auth:43
func TestAdminMakesAnonymousPermanent(t *testing.T) {
	t.Parallel()
	s := startAnonymous(t, nil)
	in := s.do("POST", "/signup", object{}).ok(200)
	r := s.do("PUT", "/admin/users/"+in.id(), object{"email": "me@example.com", "email_confirm": false}, admin).ok(200)
	same(t, "is_anonymous", r.at("is_anonymous"), any(true))
	same(t, "verified", r.at("identities.0.identity_data.email_verified"), any(false))
	r = s.do("PUT", "/admin/users/"+in.id(), object{"email": "me@example.com", "email_confirm": true}, admin).ok(200)
	same(t, "is_anonymous", r.at("is_anonymous"), any(false))
	same(t, "verified", r.at("identities.0.identity_data.email_verified"), any(true))
	if r.at("email_confirmed_at") == nil {
		t.Error("the address is not confirmed")
	}
	same(t, "identities", len(r.at("identities").([]any)), 1)
}

// spec: auth-sec:41
func TestAnonymousCleanup(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) {
		c.EnableAnonymous, c.AnonymousLife = true, 30*24*time.Hour
		c.RateLimits.Anonymous = 30
	})
	left := s.do("POST", "/signup", object{}).ok(200)
	here := s.do("POST", "/signup", object{}).ok(200)
	grown := s.do("POST", "/signup", object{}).ok(200)
	same(t, "claim", left.claims()["is_anonymous"], any(true))
	s.do("PUT", "/user", object{"email": "a@example.com"}, as(grown.access())).ok(200)
	person := s.signUp("b@example.com")
	s.clock.pass(29 * 24 * time.Hour)
	young := s.do("POST", "/signup", object{}).ok(200)
	s.renew(here.refresh()).ok(200)
	users := func() string {
		if err := s.server.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s.text("select string_agg(id::text, ' ' order by created_at, id) from auth.users")
	}
	same(t, "before", len(strings.Fields(users())), 5)
	s.clock.pass(2 * 24 * time.Hour)
	after := users()
	same(t, "after", len(strings.Fields(after)), 4)
	for _, r := range []*reply{here, grown, person, young} {
		if !strings.Contains(after, r.id()) {
			t.Errorf("a user who is needed was deleted: %s", r.text)
		}
	}

	// Kept for ever where nobody asks for the clean-up.
	s.clock.pass(365 * 24 * time.Hour)
	s.server = s.serve(nil)
	same(t, "without a life", len(strings.Fields(users())), 4)

	// No more than the limit from one address.
	s.server = s.serve(func(c *auth.Config) { c.EnableAnonymous, c.RateLimits.Anonymous = true, 30 })
	for range 30 {
		s.do("POST", "/signup", object{}).ok(200)
	}
	s.do("POST", "/signup", object{}).refused(429, "over_request_rate_limit", "Request rate limit reached")
}
