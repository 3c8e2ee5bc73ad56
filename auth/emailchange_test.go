package auth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/auth"
)

const halfText = "Confirmation link accepted. Please proceed to confirm link sent to the other email"

// changing starts a change of address and returns the mails to the new address and
// to the current one.
func (s *stack) changing(access, from, to string, body object) (next, current letter) {
	s.t.Helper()
	s.clock.pass(2 * time.Second)
	if body == nil {
		body = object{}
	}
	body["email"] = to
	r := s.do("PUT", "/user", body, as(access)).ok(200)
	same(s.t, "email", r.str("email"), from)
	same(s.t, "new_email", r.str("new_email"), to)
	all := s.letters()
	if len(all) != 2 || all[0].To != to || all[1].To != from {
		s.t.Fatalf("mails: %+v", all)
	}
	return all[0], all[1]
}

// spec: auth:79 auth-sec:25
func TestEmailChangeOfBoth(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	made := s.do("POST", "/admin/users", object{"email": "a@example.com", "password": password, "email_confirm": true}, admin).ok(200)
	in := s.login("a@example.com", password).ok(200)

	next, current := s.changing(in.access(), "a@example.com", "b@example.com", nil)
	if next.code == current.code && next.hash(t) == current.hash(t) {
		t.Error("both addresses got one token")
	}
	same(t, "new first", s.follow(next.link).whole, "http://127.0.0.1:3000#message=Confirmation+link+accepted.+Please+proceed+to+confirm+link+sent+to+the+other+email&sb=")
	s.follow(next.link).expired(t)
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 1)
	at := s.follow(current.link)
	user := s.do("GET", "/user", nil, as(at.fragment.Get("access_token"))).ok(200)
	same(t, "id", user.str("id"), made.str("id"))
	same(t, "email", user.str("email"), "b@example.com")
	same(t, "identity", user.at("identities.0.identity_data.email"), any("b@example.com"))
	same(t, "identity is verified", user.at("identities.0.identity_data.email_verified"), any(true))
	same(t, "pending", user.at("new_email"), nil)
	s.login("a@example.com", password).ok(400)

	// By digits, the current address first.
	next, current = s.changing(in.access(), "b@example.com", "c@example.com", nil)
	r := s.do("POST", "/verify", object{"type": "email_change", "email": "b@example.com", "token": current.code}).ok(200)
	same(t, "half", r.body, object{"code": "200", "msg": halfText})
	s.do("POST", "/verify", object{"type": "email_change", "email": "b@example.com", "token": current.code}).ok(403)
	r = s.do("POST", "/verify", object{"type": "email_change", "email": "c@example.com", "token": next.code}).ok(200)
	same(t, "email", r.str("user.email"), "c@example.com")
	s.login("c@example.com", password).ok(200)
}

func TestEmailChangeOfOne(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EmailAutoconfirm, c.DoubleConfirmChanges = false, false })
	s.do("POST", "/admin/users", object{"email": "a@example.com", "password": password, "email_confirm": true}, admin).ok(200)
	in := s.login("a@example.com", password).ok(200)
	s.do("PUT", "/user", object{"email": "b@example.com"}, as(in.access())).ok(200)
	l := s.letter("b@example.com")
	same(t, "subject", l.Subject, "Confirm your new email address")
	for _, part := range []string{"a@example.com", "b@example.com"} {
		if !strings.Contains(l.HTML, part) {
			t.Errorf("the mail does not name %s", part)
		}
	}
	s.do("PUT", "/user", object{"email": "c@example.com"}, as(in.access())).ok(429)
	r := s.do("POST", "/verify", object{"type": "email_change", "token_hash": l.hash(t)}).ok(200)
	same(t, "email", r.str("user.email"), "b@example.com")

	// The address that one has is no change; one that was taken meanwhile is none.
	s.clock.pass(2 * time.Second)
	s.do("PUT", "/user", object{"email": "B@example.com"}, as(in.access())).ok(200)
	s.noLetter()
	s.do("PUT", "/user", object{"email": "d@example.com"}, as(in.access())).ok(200)
	l = s.letter("d@example.com")
	s.do("POST", "/admin/users", object{"email": "d@example.com", "password": password}, admin).ok(200)
	at := s.follow(l.link)
	same(t, "taken", at.fragment.Get("error_code"), "email_exists")
	s.do("POST", "/verify", object{"type": "email_change", "token_hash": l.hash(t)}).
		refused(422, "email_exists", "A user with this email address has already been registered")
}

// Where addresses need no confirmation, one link is still followed.
func TestEmailChangeUnderAutoconfirm(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	_, current := s.changing(in.access(), "a@example.com", "b@example.com", nil)
	r := s.do("POST", "/verify", object{"type": "email_change", "token_hash": current.hash(t)}).ok(200)
	same(t, "email", r.str("user.email"), "b@example.com")
}

// spec: auth:80
func TestEmailChangePKCE(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	s.do("POST", "/admin/users", object{"email": "a@example.com", "password": password, "email_confirm": true}, admin).ok(200)
	in := s.login("a@example.com", password).ok(200)
	next, current := s.changing(in.access(), "a@example.com", "b@example.com", object{"code_challenge": challenge, "code_challenge_method": "s256"})
	half := s.follow(next.link)
	same(t, "half", half.query.Get("message")+half.fragment.Get("message"), halfText+halfText)
	at := s.follow(current.link)
	r := s.exchange(at.query.Get("code"), verifier).ok(200)
	same(t, "email", r.str("user.email"), "b@example.com")
	same(t, "amr", r.claims()["amr"].([]any)[0].(object)["method"], any("email_change"))
}

// spec: auth:75
func TestSecurePasswordChange(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.SecurePasswordChange = true })
	in := s.signUp("a@example.com")
	change := func(password, nonce string) *reply {
		return s.do("PUT", "/user", object{"password": password, "nonce": nonce}, as(in.access()))
	}
	change("within a day", "").ok(200)
	s.clock.pass(25 * time.Hour)
	in = s.renew(in.refresh()).ok(200)
	change("much later", "").refused(400, "reauthentication_needed", "Password update requires reauthentication")
	const bad = "Nonce has expired or is invalid"
	change("much later", "123456").refused(422, "reauthentication_not_valid", bad)
	s.do("GET", "/reauthenticate", nil, as(in.access())).ok(200)
	l := s.letter("a@example.com")
	change("much later", "x"+l.code).refused(422, "reauthentication_not_valid", bad)
	change("within a day", l.code).refused(422, "same_password", "New password should be different from the old password.")
	change("much later", l.code).ok(200)
	change("once more", l.code).refused(422, "reauthentication_not_valid", bad)
	s.login("a@example.com", "much later").ok(200)

	s.clock.pass(2 * time.Second)
	s.do("GET", "/reauthenticate", nil, as(in.access())).ok(200)
	l = s.letter("a@example.com")
	for range 10 {
		change("guessing", "wrong").ok(422)
	}
	change("guessing", l.code).refused(422, "reauthentication_not_valid", bad)
}

// spec: auth:103
func TestReauthenticate(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	same(t, "body", s.do("GET", "/reauthenticate", nil, as(in.access())).ok(200).text, "{}")
	l := s.letter("a@example.com")
	same(t, "subject", l.Subject, l.code+" is your verification code")
	if len(l.code) != 6 || !strings.Contains(l.HTML, l.code) || l.link != "" {
		t.Errorf("mail %+v", l)
	}
	if s.do("GET", "/user", nil, as(in.access())).at("reauthentication_sent_at") == nil {
		t.Error("the time is not kept")
	}
	s.do("GET", "/reauthenticate", nil, as(in.access())).ok(429)
	s.Exec("update auth.users set email_confirmed_at = null")
	s.do("GET", "/reauthenticate", nil, as(in.access())).refused(422, "email_not_confirmed", "Please verify your email first.")
}

// spec: auth:81
func TestNotifications(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.do("PUT", "/user", object{"password": "another one"}, as(in.access())).ok(200)
	s.noLetter()
	loud := s.serve(func(c *auth.Config) {
		c.DoubleConfirmChanges = false
		c.Templates = map[string]auth.Template{"password_changed": {Enabled: true}, "email_changed": {Enabled: true, Subject: "{{.OldEmail}} is now {{.Email}}"}}
	})
	s.doOn(loud, "PUT", "/user", object{"password": "a third one"}, as(in.access())).ok(200)
	l := s.letter("a@example.com")
	same(t, "subject", l.Subject, "Your password has been changed")
	s.doOn(loud, "PUT", "/user", object{"email": "b@example.com"}, as(in.access())).ok(200)
	hash := s.letter("b@example.com").hash(t)
	s.doOn(loud, "POST", "/verify", object{"type": "email_change", "token_hash": hash}).ok(200)
	same(t, "subject", s.letter("a@example.com").Subject, "a@example.com is now b@example.com")

	// What is done is done, even if nobody can be told.
	s.post.breakWith(errors.New("mail.internal is down"))
	s.doOn(loud, "PUT", "/user", object{"password": "a fourth one"}, as(in.access())).ok(200)
	if !strings.Contains(s.log.String(), "mail.internal is down") {
		t.Error("the failure is not logged")
	}
}
