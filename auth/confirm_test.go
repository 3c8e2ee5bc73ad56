package auth_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/auth"
)

// spec: auth:17 auth:86 auth:87 auth-sec:19 auth-sec:23
func TestConfirmByLink(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	r := s.do("POST", "/signup", object{"email": "New@Example.com", "password": password, "data": object{"name": "x"}}).ok(200)
	same(t, "confirmation_sent_at", r.at("confirmation_sent_at"), any("2026-05-01T12:00:00Z"))
	for _, field := range []string{"access_token", "email_confirmed_at", "confirmed_at", "last_sign_in_at"} {
		if r.at(field) != nil {
			t.Errorf("the answer has %s", field)
		}
	}
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 0)
	l := s.letter("new@example.com")
	same(t, "subject", l.Subject, "Confirm your email address")
	s.login("new@example.com", password).refused(400, "email_not_confirmed", "Email not confirmed")

	if hash := l.hash(t); len(hash) != 56 || strings.Contains(hash, l.code) || len(l.code) != 6 {
		t.Errorf("token %q, code %q", hash, l.code)
	}
	same(t, "link", l.link, issuer+"/verify?token="+l.hash(t)+"&type=signup&redirect_to=http://127.0.0.1:3000")
	at := s.follow(l.link)
	same(t, "target", at.at, "http://127.0.0.1:3000")
	same(t, "type", at.fragment.Get("type"), "signup")
	same(t, "token_type", at.fragment.Get("token_type"), "bearer")
	same(t, "expires_in", at.fragment.Get("expires_in"), "3600")
	if _, found := at.fragment["sb"]; !found || at.fragment.Get("expires_at") == "" {
		t.Errorf("fragment %v", at.fragment)
	}
	user := s.do("GET", "/user", nil, as(at.fragment.Get("access_token"))).ok(200)
	same(t, "confirmed", user.at("email_confirmed_at"), any("2026-05-01T12:00:00Z"))
	same(t, "user_metadata", user.at("user_metadata"), any(object{
		"name": "x", "sub": r.str("id"), "email": "new@example.com", "email_verified": true, "phone_verified": false,
	}))
	same(t, "identity", user.at("identities.0.identity_data.email_verified"), any(true))
	in := s.renew(at.fragment.Get("refresh_token")).ok(200)
	same(t, "amr", in.claims()["amr"].([]any)[0].(object)["method"], any("otp"))
	same(t, "audit", s.actions(), []string{"user_confirmation_requested", "user_signedup"})

	s.follow(l.link).expired(t)
	s.do("POST", "/verify", object{"type": "signup", "email": "new@example.com", "token": l.code}).refused(403, "otp_expired", "Token has expired or is invalid")
	s.login("new@example.com", password).ok(200)
}

// Whoever looks whether a link is alive, without opening it, does not use it up; and
// the hash works where a page of the application's own asks for it.
//
// spec: auth-sec:22
func TestLookingUsesNothingUp(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	for _, byHash := range []bool{false, true} {
		email := fmt.Sprint("user", byHash, "@example.com")
		s.do("POST", "/signup", object{"email": email, "password": password}).ok(200)
		l := s.letter(email)
		for _, method := range []string{"HEAD", "OPTIONS"} {
			same(t, method, s.do(method, strings.TrimPrefix(l.link, issuer), nil).status, 405)
		}
		if byHash {
			s.do("POST", "/verify", object{"type": "email", "token_hash": l.hash(t)}).ok(200)
		} else if at := s.follow(l.link); at.fragment.Get("access_token") == "" {
			t.Errorf("the link is used up: %s", at.whole)
		}
	}
}

// spec: auth:22 auth:23
func TestSignUpAgainUnconfirmed(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EmailAutoconfirm, c.MailInterval = false, time.Minute })
	body := object{"email": "a@example.com", "password": password}
	first := s.do("POST", "/signup", body).ok(200)
	old := s.letter("a@example.com")
	s.clock.pass(17 * time.Second)
	body["password"] = "another one"
	s.do("POST", "/signup", body).refused(429, "over_email_send_rate_limit", "For security purposes, you can only request this after 43 seconds.")
	s.noLetter()
	s.clock.pass(43 * time.Second)
	again := s.do("POST", "/signup", body).ok(200)
	same(t, "id", again.str("id"), first.str("id"))
	l := s.letter("a@example.com")
	if l.hash(t) == old.hash(t) {
		t.Error("the token is not new")
	}
	s.follow(old.link).expired(t)
	s.follow(l.link)
	s.login("a@example.com", "another one").refused(400, "invalid_credentials", "Invalid login credentials")
	s.login("a@example.com", password).ok(200)

	// A confirmed address is refused as often, and shows a user who is none.
	s.clock.pass(time.Minute)
	pretended := s.do("POST", "/signup", body).ok(200)
	if pretended.str("id") == first.str("id") {
		t.Error("the real id is shown")
	}
	s.do("POST", "/signup", body).refused(429, "over_email_send_rate_limit", "For security purposes, you can only request this after 60 seconds.")
	s.noLetter()
}

// Who signs up with the address of a user whom an administrator made sees what the
// first sign-up with an address sees, and nothing of the user but his id.
//
// spec: auth:22
func TestSignUpAgainShowsNothingOfOthers(t *testing.T) {
	t.Parallel()
	s, _ := withPhones(t, confirming)
	made := s.do("POST", "/admin/users", object{
		"email": "made@example.com", "phone": "15550002222", "role": "auditor", "ban_duration": "24h",
		"user_metadata": object{"name": "Ann"}, "app_metadata": object{"rating": "D"},
	}, admin).ok(200)
	likeNew := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[0-9:.]+Z`)
	for kind, addresses := range map[string][2]string{
		"email": {"new@example.com", "made@example.com"}, "phone": {"15550003333", "15550002222"},
	} {
		var shown [2]string
		for i, address := range addresses {
			s.clock.pass(time.Minute)
			r := s.do("POST", "/signup", object{kind: address, "password": password, "data": object{"mine": 1}}).ok(200)
			if i == 1 {
				same(t, "id", r.str("id"), made.str("id"))
			}
			shown[i] = strings.ReplaceAll(likeNew.ReplaceAllString(r.text, "*"), address, "address")
		}
		same(t, kind, shown[1], shown[0])
	}
}

// Many sign-ups of one address at once make one user and one mail.
func TestParallelSignUpUnconfirmed(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	var wg sync.WaitGroup
	replies := make([]*reply, 8)
	for i := range replies {
		wg.Go(func() { replies[i] = s.do("POST", "/signup", object{"email": "a@example.com", "password": password}) })
	}
	wg.Wait()
	n := 0
	for _, r := range replies {
		switch r.status {
		case 200:
			n++
		case 429:
		default:
			t.Errorf("status %d: %s", r.status, r.text)
		}
	}
	same(t, "answered", n, 1)
	same(t, "users", s.count("select count(*) from auth.users"), 1)
	s.letter("a@example.com")
}

// spec: auth:30
func TestSignUpsDisabled(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnableSignup, c.EnableAnonymous = false, true })
	const text = "Signups not allowed for this instance"
	s.do("POST", "/signup", object{"email": "a@example.com", "password": password}).refused(422, "signup_disabled", text)
	s.do("POST", "/signup", object{}).refused(422, "signup_disabled", text)
	s.do("POST", "/otp", object{"email": "a@example.com"}).refused(422, "signup_disabled", text)
	s.noLetter()
	s.do("POST", "/admin/users", object{"email": "a@example.com", "password": password, "email_confirm": true}, admin).ok(200)
	s.login("a@example.com", password).ok(200)
	s.do("POST", "/otp", object{"email": "a@example.com"}).ok(200)
	s.letter("a@example.com")
}

// spec: auth:35
func TestDeliveryFails(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	s.post.breakWith(errors.New("connection refused by mail.internal"))
	broken := func(r *reply, what string) {
		t.Helper()
		r.refused(500, "unexpected_failure", "Error sending "+what+" email")
		if strings.Contains(r.text, "mail.internal") {
			t.Error("the cause is shown")
		}
	}
	body := object{"email": "a@example.com", "password": password}
	broken(s.do("POST", "/signup", body), "confirmation")
	broken(s.do("POST", "/otp", body), "confirmation")
	broken(s.do("POST", "/invite", body, admin), "invite")
	for _, table := range []string{"auth.users", "auth.identities", "auth.one_time_tokens", "auth.flow_state", "auth.audit_log_entries", "sluice.auth_limits"} {
		same(t, table, s.count("select count(*) from "+table), 0)
	}
	if !strings.Contains(s.log.String(), "mail.internal") {
		t.Error("the cause is not logged")
	}
	// What failed does not count against the interval.
	s.post.breakWith(nil)
	s.do("POST", "/signup", body).ok(200)
	s.follow(s.letter("a@example.com").link)
	s.post.breakWith(errors.New("no"))
	s.clock.pass(time.Minute)
	broken(s.do("POST", "/otp", body), "magic link")
	broken(s.do("POST", "/recover", body), "recovery")
	in := s.login("a@example.com", password).ok(200)
	broken(s.do("PUT", "/user", object{"email": "b@example.com", "data": object{"x": 1}}, as(in.access())), "email change")
	broken(s.do("GET", "/reauthenticate", nil, as(in.access())), "reauthentication")
	r := s.do("GET", "/user", nil, as(in.access())).ok(200)
	same(t, "nothing is stored", []any{r.at("new_email"), r.at("recovery_sent_at"), r.at("reauthentication_sent_at"), r.at("user_metadata.x")}, []any{nil, nil, nil, nil})
}

// spec: auth:40
func TestAnonymousProvesAddress(t *testing.T) {
	t.Parallel()
	s := startAnonymous(t, confirming)
	in := s.do("POST", "/signup", object{}).ok(200)
	r := s.do("PUT", "/user", object{"email": "me@example.com"}, as(in.access())).ok(200)
	same(t, "new_email", r.str("new_email"), "me@example.com")
	same(t, "is_anonymous", r.at("is_anonymous"), any(true))
	at := s.follow(s.letter("me@example.com").link)
	same(t, "type", at.fragment.Get("type"), "email_change")
	r = s.do("GET", "/user", nil, as(at.fragment.Get("access_token"))).ok(200)
	same(t, "id", r.str("id"), in.id())
	same(t, "is_anonymous", r.at("is_anonymous"), any(false))
	same(t, "email", r.str("email"), "me@example.com")
	same(t, "identity", r.str("identities.0.email"), "me@example.com")
	if r.at("new_email") != nil || r.at("email_confirmed_at") == nil {
		t.Error(r.text)
	}
}

// spec: auth:99
func TestInvite(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EmailAutoconfirm, c.EnableSignup = false, false })
	body := object{"email": "Guest@example.com", "data": object{"team": "blue"}}
	r := s.do("POST", "/invite?redirect_to=https://app.example.com/welcome", body, admin).ok(200)
	same(t, "invited_at", r.at("invited_at"), any("2026-05-01T12:00:00Z"))
	same(t, "password", s.text("select coalesce(encrypted_password, '') from auth.users"), "")
	first := s.letter("guest@example.com")
	same(t, "subject", first.Subject, "You've been invited")
	same(t, "type", first.query(t, "type"), "invite")
	s.do("POST", "/invite", body).refused(403, "not_admin", "User not allowed")

	// Invited again, the older link is dead. A stranger learns nothing of it.
	again := s.do("POST", "/invite?redirect_to=https://app.example.com/welcome", body, admin).ok(200)
	same(t, "id", again.str("id"), r.str("id"))
	l := s.letter("guest@example.com")
	s.follow(first.link)
	at := s.follow(l.link)
	same(t, "target", at.at, "https://app.example.com/welcome")
	same(t, "type", at.fragment.Get("type"), "invite")
	if hash := s.text("select encrypted_password from auth.users"); !strings.HasPrefix(hash, "$2a$10$") || len(hash) != 60 {
		t.Errorf("stored password %q", hash)
	}
	s.do("PUT", "/user", object{"password": "my own one"}, as(at.fragment.Get("access_token"))).ok(200)
	in := s.login("guest@example.com", "my own one").ok(200)
	same(t, "id", in.id(), r.str("id"))
	same(t, "metadata", in.at("user.user_metadata.team"), any("blue"))
	s.do("POST", "/invite", body, admin).refused(422, "email_exists", "A user with this email address has already been registered")
	same(t, "audit", s.actions(), []string{"invite_accepted", "login", "user_invited", "user_invited", "user_modified"})
}

// What an inviter wrote about a user is not shown to who signs up as him.
func TestSignUpOfInvited(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	made := s.do("POST", "/invite", object{"email": "a@example.com", "data": object{"salary": 1}}, admin).ok(200)
	s.letter("a@example.com")
	s.clock.pass(time.Minute)
	r := s.do("POST", "/signup", object{"email": "a@example.com", "password": password}).ok(200)
	same(t, "id", r.str("id"), made.str("id"))
	same(t, "metadata", r.at("user_metadata"), any(object{}))
	same(t, "identities", r.at("identities"), any([]any{}))
	s.follow(s.letter("a@example.com").link)
	s.login("a@example.com", password).refused(400, "invalid_credentials", "Invalid login credentials")
}

// spec: auth:121
func TestGenerateLink(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	made := func(body object) *reply {
		t.Helper()
		r := s.do("POST", "/admin/generate_link", body, admin).ok(200)
		for _, field := range []string{"id", "email", "action_link", "email_otp", "hashed_token", "verification_type", "redirect_to"} {
			if text, _ := r.at(field).(string); text == "" {
				t.Errorf("%v: %s is missing: %s", body["type"], field, r.text)
			}
		}
		l := letter{link: r.str("action_link")}
		same(t, "token in the link", l.hash(t), r.str("hashed_token"))
		return r
	}
	byCode := func(kind, email string, r *reply) *reply {
		return s.do("POST", "/verify", object{"type": kind, "email": email, "token": r.str("email_otp")})
	}
	confirmed := s.do("POST", "/admin/users", object{"email": "old@example.com", "password": password, "email_confirm": true}, admin).ok(200)

	// sign-up: makes the user, who waits for the link.
	const to = "https://app.example.com/x"
	r := made(object{"type": "signup", "email": "s@example.com", "password": password, "data": object{"a": 1}, "redirect_to": to})
	same(t, "redirect_to", r.str("redirect_to"), to)
	s.login("s@example.com", password).refused(400, "email_not_confirmed", "Email not confirmed")
	made(object{"type": "signup", "email": "s@example.com", "data": object{"b": 2}})
	r = made(object{"type": "signup", "email": "s@example.com", "redirect_to": to})
	at := s.follow(r.str("action_link"))
	same(t, "target", at.at, to)
	in := s.login("s@example.com", password).ok(200)
	same(t, "data is merged", []any{in.at("user.user_metadata.a"), in.at("user.user_metadata.b")}, []any{1.0, 2.0})
	s.do("POST", "/admin/generate_link", object{"type": "signup", "email": "s@example.com", "password": password}, admin).
		refused(422, "email_exists", "A user with this email address has already been registered")
	s.do("POST", "/admin/generate_link", object{"type": "signup", "email": "n@example.com"}, admin).
		refused(400, "validation_failed", "Signup requires a valid password")
	s.do("POST", "/admin/generate_link", object{"type": "signup", "email": "n@example.com", "password": "x"}, admin).ok(422)

	// invitation
	r = made(object{"type": "invite", "email": "i@example.com"})
	same(t, "invited_at", r.at("invited_at"), any("2026-05-01T12:00:00Z"))
	byCode("invite", "i@example.com", r).ok(200)

	// magic link, of somebody and of nobody
	r = made(object{"type": "magiclink", "email": "Old@example.com"})
	same(t, "id", byCode("magiclink", "old@example.com", r).ok(200).id(), confirmed.str("id"))
	r = made(object{"type": "magiclink", "email": "nobody@example.com", "redirect_to": "https://evil.example/"})
	same(t, "type", r.str("verification_type"), "signup")
	same(t, "redirect_to", r.str("redirect_to"), "http://127.0.0.1:3000")
	byCode("email", "nobody@example.com", r).ok(200)

	// recovery
	r = made(object{"type": "recovery", "email": "old@example.com"})
	same(t, "type", s.follow(r.str("action_link")).fragment.Get("type"), "recovery")

	// change of address, both sides
	current := made(object{"type": "email_change_current", "email": "old@example.com", "new_email": "new@example.com"})
	next := made(object{"type": "email_change_new", "email": "old@example.com", "new_email": "new@example.com"})
	same(t, "pending", next.str("new_email"), "new@example.com")
	if next.str("hashed_token") == current.str("hashed_token") {
		t.Error("both sides have one token")
	}
	half := s.follow(current.str("action_link"))
	same(t, "half", half.fragment.Get("message"), "Confirmation link accepted. Please proceed to confirm link sent to the other email")
	in = byCode("email_change", "new@example.com", next).ok(200)
	same(t, "email", in.str("user.email"), "new@example.com")

	for _, c := range []struct {
		body          object
		status        int
		code, message string
	}{
		{object{"type": "recovery", "email": "nobody2@example.com"}, 404, "user_not_found", "User with this email not found"},
		{object{"type": "email_change_new", "email": "nobody2@example.com", "new_email": "x@example.com"}, 404, "user_not_found", "User with this email not found"},
		{object{"type": "odd", "email": "new@example.com"}, 400, "validation_failed", "Invalid email action link type requested: odd"},
		{object{"type": "invite", "email": "new@example.com"}, 422, "email_exists", "A user with this email address has already been registered"},
		{object{"type": "email_change_new", "email": "new@example.com", "new_email": "s@example.com"}, 422, "email_exists", "A user with this email address has already been registered"},
	} {
		s.do("POST", "/admin/generate_link", c.body, admin).refused(c.status, c.code, c.message)
	}
	single := s.serve(func(c *auth.Config) { c.DoubleConfirmChanges = false })
	s.doOn(single, "POST", "/admin/generate_link", object{"type": "email_change_current", "email": "new@example.com", "new_email": "z@example.com"}, admin).
		refused(400, "validation_failed", "Enable secure email change to generate link for current email")
	s.noLetter()
}

// A password that nobody knows looks like any other, and fits no password.
func TestUnknownPassword(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 50 {
		hash := auth.UnknownHash()
		if seen[hash] || len(hash) != 60 {
			t.Fatalf("hash %q", hash)
		}
		seen[hash] = true
	}
	for hash := range seen {
		if right, err := auth.CheckHash(hash, uuid.NewString()); err != nil || right {
			t.Fatalf("%q: %v %v", hash, right, err)
		}
		break
	}
}
