package auth_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/auth"
)

// spec: auth:88
func TestRecoverTellsNothing(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.MailInterval = time.Minute })
	s.signUp("a@example.com")
	for _, email := range []string{"A@example.com", "nobody@example.com"} {
		same(t, email, s.do("POST", "/recover", object{"email": email}).ok(200).text, "{}")
		s.do("POST", "/recover", object{"email": email}).refused(429, "over_email_send_rate_limit", "For security purposes, you can only request this after 60 seconds.")
	}
	l := s.letter("a@example.com")
	same(t, "subject", l.Subject, "Reset your password")
	same(t, "type", l.query(t, "type"), "recovery")
	s.do("POST", "/recover", object{}).refused(400, "validation_failed", "Password recovery requires an email")
	s.do("POST", "/recover", object{"email": "x"}).refused(400, "validation_failed", "Unable to validate email address: invalid format")
	off := s.serve(func(c *auth.Config) { c.EnableEmail = false })
	s.doOn(off, "POST", "/recover", object{"email": "a@example.com"}).refused(400, "email_provider_disabled", "Email logins are disabled")
}

// spec: auth:89
func TestRecoverPassword(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.do("POST", "/recover", object{"email": "a@example.com"}).ok(200)
	hash := s.letter("a@example.com").hash(t)
	r := s.do("POST", "/verify", object{"type": "recovery", "token_hash": hash}).ok(200)
	same(t, "id", r.id(), in.id())
	same(t, "amr", r.claims()["amr"].([]any)[0].(object)["method"], any("otp"))
	s.do("POST", "/verify", object{"type": "recovery", "token_hash": hash}).refused(403, "otp_expired", linkExpired)
	s.do("PUT", "/user", object{"password": "a new one"}, as(r.access())).ok(200)
	s.login("a@example.com", "a new one").ok(200)
	s.login("a@example.com", password).ok(400)
	same(t, "audit", s.actions(), []string{"login", "login", "login", "user_modified", "user_recovery_requested", "user_signedup"})
}

// spec: auth:90
func TestMagicLink(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	for _, ask := range []func(){
		func() { s.do("POST", "/otp", object{"email": "A@Example.com", "create_user": true}).ok(200) },
		func() { s.do("POST", "/magiclink", object{"email": "a@example.com"}).ok(200) },
	} {
		for _, use := range []func(l letter) *reply{
			func(l letter) *reply {
				return s.do("POST", "/verify", object{"type": "email", "email": "A@EXAMPLE.com", "token": l.code})
			},
			func(l letter) *reply {
				return s.do("POST", "/verify", object{"type": "email", "token_hash": l.hash(t)})
			},
			func(l letter) *reply {
				return s.do("POST", "/verify", object{"type": "magiclink", "token_hash": l.hash(t)})
			},
			func(l letter) *reply {
				return s.do("POST", "/verify", object{"type": "recovery", "email": "a@example.com", "token": l.code})
			},
		} {
			s.clock.pass(time.Minute)
			ask()
			l := s.letter("a@example.com")
			same(t, "subject", l.Subject, "Your sign-in link")
			same(t, "type", l.query(t, "type"), "magiclink")
			same(t, "id", use(l).ok(200).id(), in.id())
			use(l).ok(403)

		}
	}
	s.do("POST", "/magiclink", object{}).refused(422, "validation_failed", "Password recovery requires an email")
}

// spec: auth:91
func TestCodeForNewAddress(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	s.do("POST", "/otp", object{"email": "new@example.com", "data": object{"a": 1}}).ok(200)
	l := s.letter("new@example.com")
	same(t, "subject", l.Subject, "Confirm your email address")
	same(t, "type", l.query(t, "type"), "signup")
	r := s.do("POST", "/verify", object{"type": "email", "email": "new@example.com", "token": l.code}).ok(200)
	same(t, "data", r.at("user.user_metadata.a"), any(1.0))
	s.do("POST", "/otp", object{"email": "other@example.com"}).ok(200)
	s.do("POST", "/verify", object{"type": "signup", "email": "other@example.com", "token": s.letter("other@example.com").code}).ok(200)

	// Autoconfirm: the user is there at once, without a session.
	auto := s.serve(nil)
	s.doOn(auto, "POST", "/otp", object{"email": "auto@example.com"}).ok(200)
	l = s.letter("auto@example.com")
	same(t, "type", l.query(t, "type"), "magiclink")
	same(t, "confirmed", s.count("select count(*) from auth.users where email = 'auto@example.com' and email_confirmed_at is not null"), 1)
	same(t, "sessions", s.count("select count(*) from auth.sessions s join auth.users u on u.id = user_id where email = 'auto@example.com'"), 0)
	at := s.follow(l.link)
	same(t, "type", at.fragment.Get("type"), "magiclink")
	s.login("auto@example.com", "").ok(400)
}

// spec: auth:92 auth:93
func TestCodeRequests(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.do("POST", "/otp", object{"email": "nobody@example.com", "create_user": false}).refused(422, "otp_disabled", "Signups not allowed for otp")
	same(t, "users", s.count("select count(*) from auth.users"), 0)
	for _, c := range []struct {
		body    object
		message string
	}{
		{object{"email": "a@example.com", "phone": "491234"}, "Only an email address or phone number should be provided"},
		{object{}, "One of email or phone must be set"},
		{object{"email": "a@example.com", "channel": "sms"}, "Channel should only be specified with Phone OTP"},
	} {
		s.do("POST", "/otp", c.body).refused(400, "validation_failed", c.message)
	}
	s.do("POST", "/otp", object{"phone": "491234"}).refused(400, "phone_provider_disabled", "Unsupported phone provider")
	phones := s.serve(func(c *auth.Config) { c.EnablePhone, c.EnableEmail = true, false })
	s.doOn(phones, "POST", "/otp", object{"phone": "491234"}).refused(500, "unexpected_failure", "Unable to get SMS provider")
	s.doOn(phones, "POST", "/otp", object{"email": "a@example.com"}).refused(422, "email_provider_disabled", "Email logins are disabled")
	s.noLetter()
}

// spec: auth:94 auth:95
func TestResend(t *testing.T) {
	t.Parallel()
	s := start(t, confirming)
	s.do("POST", "/signup", object{"email": "a@example.com", "password": password}).ok(200)
	old := s.letter("a@example.com")
	s.clock.pass(2 * time.Second)
	resend := func(kind, email string) *reply {
		return s.do("POST", "/resend", object{"type": kind, "email": email})
	}
	same(t, "body", resend("signup", "a@example.com").ok(200).text, "{}")
	resend("signup", "a@example.com").ok(429)
	l := s.letter("a@example.com")
	s.follow(old.link).expired(t)
	s.do("POST", "/verify", object{"type": "signup", "email": "a@example.com", "token": old.code}).ok(403)
	at := s.follow(l.link)
	s.clock.pass(2 * time.Second)
	for _, email := range []string{"a@example.com", "nobody@example.com"} {
		resend("signup", email).ok(200)
		resend("email_change", email).ok(200)
	}
	s.noLetter()

	s.do("PUT", "/user", object{"email": "b@example.com"}, as(at.fragment.Get("access_token"))).ok(200)
	first := s.letters()
	s.clock.pass(2 * time.Second)
	resend("email_change", "a@example.com").ok(200)
	second := s.letters()
	if len(first) != 2 || len(second) != 2 || second[0].To != "b@example.com" || second[1].To != "a@example.com" {
		t.Fatalf("mails %v, then %v", first, second)
	}
	s.follow(first[0].link).expired(t)

	for _, c := range []struct {
		body    object
		message string
	}{
		{object{"type": "recovery", "email": "a@example.com"}, "Missing one of these types: signup, email_change, sms, phone_change"},
		{object{"email": "a@example.com"}, "Missing one of these types: signup, email_change, sms, phone_change"},
		{object{"type": "signup", "phone": "491234"}, "Type provided requires an email address"},
		{object{"type": "sms", "email": "a@example.com"}, "Type provided requires a phone number"},
		{object{"type": "signup", "email": "a@example.com", "phone": "491234"}, "Only an email address or phone number should be provided."},
		{object{"type": "signup"}, "Missing email address or phone number"},
	} {
		s.do("POST", "/resend", c.body).refused(400, "validation_failed", c.message)
	}
	s.do("POST", "/resend", object{"type": "sms", "phone": "491234"}).ok(200)
	s.noLetter()

	// A later request for a link ends the earlier one, whichever way it was asked for.
	ask := func(path string) letter {
		s.clock.pass(2 * time.Second)
		s.do("POST", path, object{"email": "a@example.com"}).ok(200)
		return s.letter("a@example.com")
	}
	one, two := ask("/otp"), ask("/recover")
	s.follow(one.link).expired(t)
	s.follow(two.link)
}

// spec: auth:96 auth:97
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.signUp("a@example.com")
	s.do("POST", "/otp", object{"email": "a@example.com"}).ok(200)
	l := s.letter("a@example.com")
	const dead = "Token has expired or is invalid"
	verify := func(body object) *reply { return s.do("POST", "/verify", body) }
	for _, c := range []struct {
		body          object
		status        int
		code, message string
	}{
		{object{"type": "email", "email": "a@example.com", "token": "x" + l.code}, 403, "otp_expired", dead},
		{object{"type": "email", "email": "nobody@example.com", "token": l.code}, 403, "otp_expired", dead},
		{object{"type": "signup", "email": "a@example.com", "token": l.code}, 403, "otp_expired", dead},
		{object{"type": "odd", "email": "a@example.com", "token": l.code}, 403, "otp_expired", dead},
		{object{"type": "sms", "phone": "491234", "token": l.code}, 403, "otp_expired", dead},
		{object{"type": "odd", "token_hash": l.hash(t)}, 400, "validation_failed", "Invalid email verification type"},
		{object{"type": "signup", "token_hash": l.hash(t)}, 403, "otp_expired", linkExpired},
		{object{"token": l.code, "email": "a@example.com"}, 400, "validation_failed", "Verify requires a verification type"},
		{object{"type": "email"}, 400, "validation_failed", "Verify requires either a token or a token hash"},
		{object{"type": "email", "token": l.code, "token_hash": l.hash(t)}, 400, "validation_failed", "Verify requires either a token or a token hash"},
		{object{"type": "email", "token_hash": l.hash(t), "email": "a@example.com"}, 400, "validation_failed", "Only the token_hash and type should be provided"},
		{object{"type": "email", "token": l.code}, 400, "validation_failed", "Only an email address or phone number should be provided on verify"},
		{object{"type": "email", "token": l.code, "email": "a@example.com", "phone": "491234"}, 400, "validation_failed", "Only an email address or phone number should be provided on verify"},
		{object{"type": "email", "token": l.code, "email": "a b@example.com"}, 422, "validation_failed", "Invalid email format"},
	} {
		verify(c.body).refused(c.status, c.code, c.message)
	}
	s.do("GET", "/verify?type=signup", nil).refused(400, "validation_failed", "Verify requires a token or a token hash")
	s.do("GET", "/verify?token=x", nil).refused(400, "validation_failed", "Verify requires a verification type")
	at := s.follow(issuer + "/verify?type=odd&token=" + l.hash(t))
	same(t, "unknown type", at.fragment.Get("error_description")+" "+at.fragment.Get("error"), "Invalid email verification type invalid_request")
	at = s.follow(issuer + "/verify?type=odd&token=pkce_" + l.hash(t))
	same(t, "unknown type, PKCE", at.query.Get("error_code"), "validation_failed")

	s.clock.pass(time.Hour)
	s.clock.pass(time.Second)
	verify(object{"type": "email", "email": "a@example.com", "token": l.code}).refused(403, "otp_expired", dead)
	s.follow(l.link).expired(t)
}

// spec: auth:98
func TestBannedLink(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.do("POST", "/otp", object{"email": "a@example.com"}).ok(200)
	l := s.letter("a@example.com")
	s.do("PUT", "/admin/users/"+in.id(), object{"ban_duration": "1m"}, admin).ok(200)
	at := s.follow(l.link)
	same(t, "error", at.whole, "http://127.0.0.1:3000#error=access_denied&error_code=user_banned&error_description=User+is+banned&sb=")
	s.do("POST", "/verify", object{"type": "email", "email": "a@example.com", "token": l.code}).refused(403, "user_banned", "User is banned")
	s.clock.pass(2 * time.Minute)
	same(t, "after the ban", s.follow(l.link).fragment.Get("type"), "magiclink")
}

// Six digits are guessed in a million tries; the tenth wrong one ends the token, from whatever
// address and on whatever node.
//
// spec: auth-sec:20 auth-sec:21
func TestGuessesAreCounted(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.signUp("b@example.com")
	other := s.serve(nil)
	ask := func(email string) letter {
		s.clock.pass(2 * time.Second)
		s.do("POST", "/otp", object{"email": email}).ok(200)
		return s.letter(email)
	}
	guess := func(n int, email, code string) {
		for i := range n {
			server := s.server
			if i%2 == 0 {
				server = other
			}
			s.doOn(server, "POST", "/verify", object{"type": "email", "email": email, "token": code}).ok(403)
		}
	}
	l := ask("a@example.com")
	guess(9, "a@example.com", "000x00")
	s.do("POST", "/verify", object{"type": "email", "email": "a@example.com", "token": l.code}).ok(200)
	l = ask("a@example.com")
	guess(10, "a@example.com", "000x00")
	s.do("POST", "/verify", object{"type": "email", "email": "a@example.com", "token": l.code}).ok(403)
	s.follow(l.link).expired(t)

	// A code is worth nothing for another address, and what is stored is no code.
	a, b := ask("a@example.com"), ask("b@example.com")
	if a.code != b.code {
		guess(1, "b@example.com", a.code)
	}
	same(t, "codes in the database", s.count("select count(*) from auth.one_time_tokens where token_hash like '%' || $1 || '%' and length($1) = 6 and token_hash = $1", a.code), 0)
	same(t, "hash", s.text("select token_hash from auth.one_time_tokens where user_id = $1", in.id()), auth.HashCode(s.keys, "a@example.com", a.code))
}

// spec: auth-sec:58
func TestParallelVerify(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.signUp("a@example.com")
	nodes := []*auth.Server{s.server, s.serve(nil)}
	for _, byLink := range []bool{true, false} {
		s.clock.pass(2 * time.Second)
		s.do("POST", "/otp", object{"email": "a@example.com"}).ok(200)
		l := s.letter("a@example.com")
		body := object{"type": "email", "email": "a@example.com", "token": l.code}
		if byLink {
			body = object{"type": "email", "token_hash": l.hash(t)}
		}
		var wg sync.WaitGroup
		status := make([]int, 16)
		for i := range status {
			wg.Go(func() { status[i] = s.doOn(nodes[i%2], "POST", "/verify", body).status })
		}
		wg.Wait()
		good := 0
		for _, code := range status {
			switch code {
			case http.StatusOK:
				good++
			case http.StatusForbidden:
			default:
				t.Errorf("status %d", code)
			}
		}
		same(t, "accepted", good, 1)
	}
}

// Refreshing, signing out and changing the password at once leaves either a session
// that goes on or none, and no error that clients would retry for ever.
func TestParallelRefreshAndSignOut(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			var r *reply
			if i == 6 {
				r = s.do("POST", "/logout", nil, as(in.access()))
			} else {
				r = s.renew(in.refresh())
			}
			if r.status >= 500 {
				t.Errorf("%s: %d %s", r.call, r.status, r.text)
			}
		})
	}
	wg.Wait()
	s.renew(in.refresh()).refused(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 0)
}

// A link is as good as the code: its hash may not be made of what others know.
func TestHashOfALinkIsNotGuessed(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.signUp("a@example.com")
	s.do("POST", "/recover", object{"email": "a@example.com"}).ok(200)
	code := s.letter("a@example.com").code
	sum := sha256.Sum224([]byte("a@example.com" + code))
	s.do("POST", "/verify", object{"type": "recovery", "token_hash": hex.EncodeToString(sum[:])}).refused(403, "otp_expired", linkExpired)
	s.do("POST", "/verify", object{"type": "recovery", "token_hash": auth.HashCode(s.keys, "a@example.com", code)}).ok(200)
}
