package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
)

// texts keeps the messages that Auth sends to phones.
type texts struct {
	mu   sync.Mutex
	got  []auth.Text
	fail error
}

func (x *texts) Send(_ context.Context, m auth.Text) (string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fail != nil {
		return "", x.fail
	}
	x.got = append(x.got, m)
	return fmt.Sprintf("SM%d", len(x.got)), nil
}

// take returns the one message that was sent since it was last asked, and its code.
func (x *texts) take(t testing.TB, to string) (code string) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.got) != 1 || x.got[0].To != to {
		t.Fatalf("messages: %+v, want one to %s", x.got, to)
	}
	body := x.got[0].Body
	x.got = nil
	return body[strings.LastIndexByte(body, ' ')+1:]
}

func (x *texts) none(t testing.TB) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.got) > 0 {
		t.Fatalf("messages: %+v", x.got)
	}
}

const phone = "15550001111"

// withPhones serves Auth with phones that must be confirmed.
func withPhones(t *testing.T, change func(*auth.Config)) (*stack, *texts) {
	t.Helper()
	x := &texts{}
	return start(t, func(c *auth.Config) {
		c.EnablePhone = true
		c.SMS = auth.SMS{Texter: x, Provider: "twilio", Interval: 5 * time.Second, CodeExpiry: time.Minute, TestCodes: map[string]string{"+1 555 000 9999": "654321"}}
		c.EnablePhoneEnroll, c.EnablePhoneVerify = true, true
		c.PhoneFactor = auth.SMS{Template: "Factor {{ .Code }}", CodeLength: 8, Interval: 5 * time.Second}
		if change != nil {
			change(c)
		}
	}), x
}

func (s *stack) verifyText(kind, phone, code string) *reply {
	s.t.Helper()
	return s.do("POST", "/verify", object{"type": kind, "phone": phone, "token": code})
}

const codeExpired = "Token has expired or is invalid"

func TestPhoneSignUpByCode(t *testing.T) {
	t.Parallel()
	s, x := withPhones(t, confirming)
	body := object{"phone": "+1 555 000 1111", "password": password, "data": object{"name": "x"}}
	u := s.do("POST", "/signup", body).ok(200)
	same(t, "user", []any{u.at("phone"), u.at("email"), u.body["phone_confirmed_at"], u.at("confirmation_sent_at") != nil, u.body["access_token"]}, []any{phone, "", nil, true, nil})
	same(t, "identity", u.at("identities.0.identity_data"), any(object{"sub": u.str("id"), "email_verified": false, "phone_verified": false}))
	code := x.take(t, phone)
	same(t, "digits", len(code), 6)
	s.do("POST", "/token?grant_type=password", object{"phone": phone, "password": password}).refused(400, "phone_not_confirmed", "Phone not confirmed")
	s.do("POST", "/signup", body).refused(429, "over_sms_send_rate_limit", "For security purposes, you can only request this after 5 seconds.")
	s.clock.pass(6 * time.Second)
	again := s.do("POST", "/signup", body).ok(200)
	same(t, "same user", again.str("id"), u.str("id"))
	newCode := x.take(t, phone)

	// Neither the code of a message as a link, nor an address's type, nor a wrong one.
	s.do("POST", "/verify", object{"type": "signup", "token_hash": auth.HashCode(s.keys, phone, newCode)}).refused(403, "otp_expired", linkExpired)
	s.verifyText("signup", phone, newCode).refused(403, "otp_expired", codeExpired)
	s.verifyText("phone_change", phone, newCode).refused(403, "otp_expired", codeExpired)
	s.verifyText("sms", phone, "000000x").refused(403, "otp_expired", codeExpired)
	s.verifyText("sms", "15550002222", newCode).refused(403, "otp_expired", codeExpired)
	s.verifyText("sms", "x", newCode).refused(400, "validation_failed", "Invalid phone number format (E.164 required)")
	s.verifyText("sms", phone, code).refused(403, "otp_expired", codeExpired)

	in := s.verifyText("sms", "+"+phone, newCode).ok(200)
	same(t, "amr", in.claims()["amr"].([]any)[0].(object)["method"], any("otp"))
	same(t, "claims", []any{in.claims()["phone"], in.claims()["email"]}, []any{phone, ""})
	same(t, "confirmed", []any{in.at("user.phone_confirmed_at") != nil, in.at("user.user_metadata.phone_verified"), in.at("user.identities.0.identity_data.phone_verified")}, []any{true, true, true})
	s.verifyText("sms", phone, newCode).refused(403, "otp_expired", codeExpired)
	s.do("POST", "/token?grant_type=password", object{"phone": phone, "password": password}).ok(200)

	// A confirmed number answers as a new one does, without a message.
	s.clock.pass(time.Minute)
	fake := s.do("POST", "/signup", body).ok(200)
	same(t, "fake", []any{fake.at("identities"), fake.str("id") == u.str("id")}, []any{[]any{}, false})
	s.do("POST", "/signup", body).refused(429, "over_sms_send_rate_limit", "For security purposes, you can only request this after 5 seconds.")
	x.none(t)

	s.do("POST", "/signup", object{"phone": "15550003333", "password": password, "channel": "pigeon"}).ok(400)
	s.do("POST", "/signup", object{"phone": "15550003333", "password": password, "channel": "whatsapp"}).ok(400)
	s.do("POST", "/signup", pkce(object{"phone": "15550003333", "password": password})).refused(400, "validation_failed", "PKCE not supported for phone signups")
}

func TestPhoneCodes(t *testing.T) {
	t.Parallel()
	s, x := withPhones(t, func(c *auth.Config) { c.RateLimits.SMS = 4; c.SMS.WhatsApp = true })
	r := s.do("POST", "/otp", object{"phone": phone, "data": object{"a": 1}}).ok(200)
	same(t, "answer", r.body, object{"message_id": "SM1"})
	code := x.take(t, phone)
	in := s.verifyText("sms", phone, code).ok(200)
	same(t, "user", []any{in.at("user.user_metadata.a"), in.at("user.app_metadata")}, []any{1.0, object{"provider": "phone", "providers": []any{"phone"}}})

	// Who is known gets a code as well. It lives a minute.
	s.clock.pass(10 * time.Second)
	s.do("POST", "/otp", object{"phone": phone, "create_user": false, "channel": "whatsapp"}).ok(200)
	same(t, "channel", x.got[0].Channel, "whatsapp")
	code = x.take(t, phone)
	s.clock.pass(61 * time.Second)
	s.verifyText("sms", phone, code).refused(403, "otp_expired", codeExpired)
	s.do("POST", "/otp", object{"phone": phone}).ok(200)
	same(t, "same user", s.verifyText("sms", phone, x.take(t, phone)).ok(200).id(), in.id())
	same(t, "users", s.count("select count(*) from auth.users"), 1)

	s.do("POST", "/otp", object{"phone": "15550004444", "create_user": false}).refused(422, "otp_disabled", "Signups not allowed for otp")
	s.do("POST", "/otp", object{"phone": "123456789012345678"}).refused(400, "validation_failed", "Invalid phone number format (E.164 required)")

	// Ten wrong guesses end a code.
	s.clock.pass(10 * time.Second)
	s.do("POST", "/otp", object{"phone": phone}).ok(200)
	code = x.take(t, phone)
	for range 10 {
		s.verifyText("sms", phone, "wrong").refused(403, "otp_expired", codeExpired)
	}
	s.verifyText("sms", phone, code).refused(403, "otp_expired", codeExpired)

	// The limit of the whole server, and numbers of the tests, which need no message.
	s.do("POST", "/otp", object{"phone": "15550005555"}).refused(429, "over_sms_send_rate_limit", "SMS rate limit exceeded")
	same(t, "nothing is stored", s.count("select count(*) from auth.users where phone = '15550005555'"), 0)
	same(t, "test message", s.do("POST", "/otp", object{"phone": "15550009999"}).ok(200).body, object{"message_id": "test-otp"})
	s.do("POST", "/otp", object{"phone": "15550009999"}).refused(429, "over_sms_send_rate_limit", "For security purposes, you can only request this after 5 seconds.")
	s.verifyText("sms", "15550009999", "654321").ok(200)
	x.none(t)

	// A message that is not taken over stores nothing.
	s.clock.pass(time.Hour)
	x.fail = &auth.TextError{Reason: "number is a landline"}
	s.do("POST", "/otp", object{"phone": "15550006666"}).refused(422, "sms_send_failed", "Error sending confirmation OTP to provider: number is a landline")
	x.fail = errors.New("dial tcp 10.0.0.1: secret")
	s.do("POST", "/otp", object{"phone": "15550006666"}).refused(422, "sms_send_failed", "Error sending confirmation OTP to provider: the service cannot be reached")
	same(t, "nothing is stored", s.count("select count(*) from auth.users where phone = '15550006666'"), 0)

	none := s.serve(func(c *auth.Config) { c.EnablePhone = true })
	s.doOn(none, "POST", "/otp", object{"phone": "15550006666"}).refused(500, "unexpected_failure", "Unable to get SMS provider")
	closed := s.serve(func(c *auth.Config) { c.EnablePhone, c.EnableSignup, c.SMS.Texter = true, false, x })
	s.doOn(closed, "POST", "/otp", object{"phone": "15550006666"}).refused(422, "signup_disabled", "Signups not allowed for this instance")

	auto := s.serve(func(c *auth.Config) { c.EnablePhone, c.PhoneAutoconfirm, c.SMS.Texter = true, true, x })
	x.fail = nil
	s.doOn(auto, "POST", "/otp", object{"phone": "15550007777"}).ok(200)
	same(t, "confirmed at once", s.count("select count(*) from auth.users where phone = '15550007777' and phone_confirmed_at is not null"), 1)
	s.verifyText("sms", "15550007777", x.take(t, "15550007777")).ok(200)
}

func TestPhoneChange(t *testing.T) {
	t.Parallel()
	s, x := withPhones(t, func(c *auth.Config) {
		c.EnableAnonymous = true
		c.Templates = map[string]auth.Template{"phone_changed": {Enabled: true}}
	})
	in := s.signUp("a@example.com")
	u := s.do("PUT", "/user", object{"phone": "+" + phone}, as(in.access())).ok(200)
	same(t, "pending", []any{u.at("phone"), u.at("new_phone"), u.at("phone_change_sent_at") != nil}, []any{"", phone, true})
	first := x.take(t, phone)
	s.do("POST", "/resend", object{"type": "phone_change", "phone": phone}).refused(429, "over_sms_send_rate_limit", "For security purposes, you can only request this after 5 seconds.")
	s.clock.pass(6 * time.Second)
	same(t, "again", s.do("POST", "/resend", object{"type": "phone_change", "phone": phone}).ok(200).body, object{"message_id": "SM1"})
	code := x.take(t, phone)
	s.verifyText("phone_change", phone, first).refused(403, "otp_expired", codeExpired)
	s.verifyText("sms", phone, code).refused(403, "otp_expired", codeExpired)
	got := s.verifyText("phone_change", phone, code).ok(200)
	same(t, "changed", []any{got.id(), got.at("user.phone"), got.body["new_phone"], got.at("user.phone_confirmed_at") != nil}, []any{in.id(), phone, nil, true})
	same(t, "providers", got.at("user.app_metadata.providers"), any([]any{"email", "phone"}))
	same(t, "told", strings.Contains(s.letter("a@example.com").HTML, phone), true)

	// A number of somebody else, taken meanwhile too.
	other := s.signUp("b@example.com")
	s.do("PUT", "/user", object{"phone": phone}, as(other.access())).refused(422, "phone_exists", "A user with this phone number has already been registered")
	s.do("PUT", "/user", object{"phone": "15550002222"}, as(other.access())).ok(200)
	code = x.take(t, "15550002222")
	s.do("POST", "/admin/users", object{"phone": "15550002222", "phone_confirm": true}, admin).ok(200)
	s.verifyText("phone_change", "15550002222", code).refused(422, "phone_exists", "A user with this phone number has already been registered")

	// An anonymous user becomes permanent with the code.
	anon := s.do("POST", "/signup", object{}).ok(200)
	s.do("PUT", "/user", object{"phone": "15550003333"}, as(anon.access())).ok(200)
	got = s.verifyText("phone_change", "15550003333", x.take(t, "15550003333")).ok(200)
	same(t, "permanent", []any{got.id(), got.at("user.is_anonymous")}, []any{anon.id(), false})

	// Nothing to send is not told.
	s.clock.pass(time.Minute)
	for _, c := range []object{{"type": "sms", "phone": phone}, {"type": "sms", "phone": "15559999999"}, {"type": "phone_change", "phone": "15559999999"}} {
		same(t, "resend", s.do("POST", "/resend", c).ok(200).body, object{})
		s.do("POST", "/resend", c).refused(429, "over_sms_send_rate_limit", "For security purposes, you can only request this after 5 seconds.")
	}
	x.none(t)
}

func TestPhoneReauthentication(t *testing.T) {
	t.Parallel()
	s, x := withPhones(t, func(c *auth.Config) { c.SecurePasswordChange = true })
	s.do("POST", "/signup", object{"phone": phone, "password": password}).ok(200)
	in := s.verifyText("sms", phone, x.take(t, phone)).ok(200)
	s.Exec("update auth.sessions set created_at = created_at - interval '25 hours'")
	change := func(nonce string) *reply {
		return s.do("PUT", "/user", object{"password": "another horse", "nonce": nonce}, as(in.access()))
	}
	change("").refused(400, "reauthentication_needed", "Password update requires reauthentication")
	same(t, "answer", s.do("GET", "/reauthenticate", nil, as(in.access())).ok(200).body, object{"message_id": "SM1"})
	code := x.take(t, phone)
	change("wrong").refused(422, "reauthentication_not_valid", "Nonce has expired or is invalid")
	change(code).ok(200)
}

func TestPhoneFactor(t *testing.T) {
	t.Parallel()
	s, x := withPhones(t, func(c *auth.Config) {
		c.Templates = map[string]auth.Template{"mfa_factor_enrolled": {Enabled: true}, "mfa_factor_unenrolled": {Enabled: true}}
	})
	in := s.signUp("a@example.com")
	enroll := func(body object) *reply { return s.do("POST", "/factors", body, as(in.access())) }
	enroll(object{"factor_type": "phone", "phone": "x"}).refused(400, "validation_failed", "Invalid phone number format (E.164 required)")
	enroll(object{"factor_type": "phone", "phone": phone, "friendly_name": "old"}).ok(200)
	f := enroll(object{"factor_type": "phone", "phone": "+" + phone, "friendly_name": "mine"}).ok(200)
	same(t, "answer", f.body, object{"id": f.str("id"), "type": "phone", "friendly_name": "mine", "phone": phone})
	same(t, "tried anew", s.count("select count(*) from auth.mfa_factors"), 1)
	id := f.str("id")
	ask := func() *reply {
		return s.do("POST", "/factors/"+id+"/challenge", object{"channel": "sms"}, as(in.access()))
	}
	c := ask().ok(200)
	same(t, "type", c.str("type"), "phone")
	code := x.take(t, phone)
	same(t, "digits", len(code), 8)
	ask().refused(429, "over_sms_send_rate_limit", "For security purposes, you can only request this after 5 seconds.")
	same(t, "no code is stored", s.text("select otp_code from auth.mfa_challenges"), auth.HashCode(s.keys, phone, code))
	s.verifyFactor(in.access(), app{id: id}, c.str("id"), "00000000").refused(422, "mfa_verification_failed", "Invalid MFA Phone code entered")
	up := s.verifyFactor(in.access(), app{id: id}, c.str("id"), code).ok(200)
	same(t, "aal", up.claims()["aal"], any("aal2"))
	same(t, "amr", up.claims()["amr"].([]any)[0].(object)["method"], any("mfa/phone"))
	same(t, "mailed", s.letter("a@example.com").Subject, "A second factor was added")
	s.verifyFactor(up.access(), app{id: id}, c.str("id"), code).refused(422, "mfa_ip_address_mismatch", "Challenge and verify IP addresses mismatch.")
	s.do("POST", "/factors", object{"factor_type": "phone", "phone": phone, "friendly_name": "again"}, as(up.access())).
		refused(422, "mfa_verified_factor_exists", "A verified phone factor already exists, unenroll the existing factor to continue")
	same(t, "refresh keeps it", s.renew(up.refresh()).ok(200).claims()["aal"], any("aal2"))

	// A code lives as long as its challenge.
	s.clock.pass(time.Minute)
	c = s.do("POST", "/factors/"+id+"/challenge", nil, as(up.access())).ok(200)
	code = x.take(t, phone)
	s.clock.pass(5*time.Minute + time.Second)
	s.verifyFactor(up.access(), app{id: id}, c.str("id"), code).ok(422)
	off := s.serve(func(c *auth.Config) { c.EnablePhoneEnroll = false })
	s.doOn(off, "POST", "/factors/"+id+"/challenge", nil, as(up.access())).refused(422, "mfa_phone_verify_not_enabled", "MFA verification is disabled for Phone")
	s.doOn(off, "POST", "/factors", object{"factor_type": "phone", "phone": phone}, as(up.access())).refused(422, "mfa_phone_enroll_not_enabled", "MFA enroll is disabled for Phone")
	s.do("DELETE", "/factors/"+id, nil, as(up.access())).ok(200)
	same(t, "mailed", s.letter("a@example.com").Subject, "A second factor was removed")
}

func TestTextHook(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	s, x := withPhones(t, func(c *auth.Config) {
		c.Hooks = map[string]auth.Hook{"send_sms": {URI: e.url, Secrets: hookSecrets}}
	})
	s.do("POST", "/otp", object{"phone": phone}).ok(200)
	x.none(t)
	sent := e.last()["sms"].(object)
	same(t, "sms", sent, object{"otp": sent["otp"], "phone": phone, "sms_type": "sms"})
	same(t, "user", e.last()["user"].(object)["phone"], any(phone))
	s.verifyText("sms", phone, sent["otp"].(string)).ok(200)
	e.answers(func(w http.ResponseWriter, _ int) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"error":{"http_code":429,"message":"later"}}`)
	})
	s.do("POST", "/otp", object{"phone": "15550002222"}).refused(429, "unknown", "later")
	same(t, "users", s.count("select count(*) from auth.users"), 1)
}

func TestTwilio(t *testing.T) {
	t.Parallel()
	var form map[string][]string
	status, answer := 201, `{"sid":"SM123","status":"queued"}`
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		if user != "AC1" || pass != "token" || r.URL.Path != "/2010-04-01/Accounts/AC1/Messages.json" {
			t.Errorf("%s as %s", r.URL, user)
		}
		_ = r.ParseForm()
		form = r.PostForm
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(srv.Close)
	tw, err := auth.NewTwilio(auth.TwilioConfig{AccountSID: "AC1", AuthToken: "token", Sender: "15550000000", URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	send := func(channel string) (string, error) {
		return tw.Send(context.Background(), auth.Text{To: phone, Body: "Your code is 1", Channel: channel})
	}
	id, err := send("sms")
	same(t, "id", []any{id, err}, []any{"SM123", nil})
	same(t, "form", form, map[string][]string{"To": {"+" + phone}, "From": {"15550000000"}, "Body": {"Your code is 1"}, "Channel": {"sms"}})
	if _, err := send("whatsapp"); err != nil {
		t.Error(err)
	}
	same(t, "whatsapp", form["To"][0]+form["From"][0], "whatsapp:+"+phone+"whatsapp:15550000000")
	status, answer = 400, `{"code":21211,"message":"Invalid 'To' Phone Number"}`
	_, err = send("sms")
	var shown *auth.TextError
	if !errors.As(err, &shown) || shown.Reason != "Invalid 'To' Phone Number" {
		t.Error(err)
	}
	status, answer = 500, `{"message":"internal"}`
	if _, err = send("sms"); err == nil || errors.As(err, &shown) {
		t.Error(err)
	}
	for _, c := range []auth.TwilioConfig{{}, {AccountSID: "x", AuthToken: "y"}} {
		if _, err := auth.NewTwilio(c); !errors.Is(err, sluice.ErrInvalid) {
			t.Error(err)
		}
	}
}
