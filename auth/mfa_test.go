package auth_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/auth"
)

func withTOTP(c *auth.Config) { c.EnableTOTPEnroll, c.EnableTOTPVerify = true, true }

// app is an authenticator app.
type app struct{ id, secret string }

func (s *stack) enroll(access, name string) app {
	s.t.Helper()
	r := s.do("POST", "/factors", object{"factor_type": "totp", "friendly_name": name}, as(access)).ok(200)
	return app{r.str("id"), r.str("totp.secret")}
}

func (s *stack) challenge(access string, a app, options ...option) string {
	s.t.Helper()
	return s.do("POST", "/factors/"+a.id+"/challenge", nil, append(options, as(access))...).ok(200).str("id")
}

func (s *stack) verifyFactor(access string, a app, challenge, code string, options ...option) *reply {
	s.t.Helper()
	return s.do("POST", "/factors/"+a.id+"/verify", object{"challenge_id": challenge, "code": code}, append(options, as(access))...)
}

// stepUp verifies a factor with the code that its app shows.
func (s *stack) stepUp(access string, a app) *reply {
	s.t.Helper()
	return s.verifyFactor(access, a, s.challenge(access, a), auth.TOTPAt(a.secret, s.clock.now())).ok(200)
}

// RFC 6238, appendix B, the last six digits.
func TestTOTP(t *testing.T) {
	t.Parallel()
	const secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" // 12345678901234567890
	for unix, want := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		at := time.Unix(unix, 0)
		same(t, at.String(), auth.TOTPAt(secret, at), want)
		for off, fits := range map[time.Duration]bool{0: true, 30 * time.Second: true, -30 * time.Second: true, 90 * time.Second: false, -90 * time.Second: false} {
			same(t, off.String(), auth.TOTPFits(secret, want, at.Add(off)), fits)
		}
		same(t, "lower case, padded", auth.TOTPFits(strings.ToLower(secret)+"====", want, at), true)
	}
	for _, code := range []string{"", "28708", "2870820", "287 82"} {
		same(t, code, auth.TOTPFits(secret, code, time.Unix(59, 0)), false)
	}
	same(t, "no secret", auth.TOTPFits("", "287082", time.Unix(59, 0)), false)
	same(t, "no base32", auth.TOTPFits("!", "287082", time.Unix(59, 0)), false)
}

// spec: auth:131
func TestEnroll(t *testing.T) {
	t.Parallel()
	s := start(t, withTOTP)
	in := s.signUp("a@example.com")
	r := s.do("POST", "/factors", object{"factor_type": "totp", "friendly_name": "my phone"}, as(in.access())).ok(200)
	same(t, "type", r.str("type"), "totp")
	same(t, "friendly_name", r.str("friendly_name"), "my phone")
	secret := r.str("totp.secret")
	if len(secret) != 32 || strings.Trim(secret, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		t.Errorf("secret %q", secret)
	}
	u, err := url.Parse(r.str("totp.uri"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "uri", r.str("totp.uri"), "otpauth://totp/127.0.0.1:3000:a@example.com?algorithm=SHA1&digits=6&issuer=127.0.0.1%3A3000&period=30&secret="+secret)
	same(t, "issuer", u.Query().Get("issuer"), "127.0.0.1:3000")
	picture := r.str("totp.qr_code")
	if !strings.HasPrefix(picture, "<svg ") {
		t.Errorf("picture %.40s", picture)
	}
	for dec := xml.NewDecoder(strings.NewReader(picture)); ; {
		if _, err := dec.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("the picture is no XML: %v", err)
		}
	}
	same(t, "issuer", strings.Contains(s.do("POST", "/factors", object{"factor_type": "totp", "issuer": "A B"}, as(in.access())).ok(200).str("totp.uri"), "totp/A%20B:a@example.com?algorithm=SHA1&digits=6&issuer=A%20B&"), true)

	const taken = `A factor with the friendly name "my phone" for this user already exists`
	s.do("POST", "/factors", object{"factor_type": "totp", "friendly_name": "my phone"}, as(in.access())).refused(422, "mfa_factor_name_conflict", taken)
	s.do("POST", "/factors", object{"factor_type": "totp"}, as(in.access())).
		refused(422, "mfa_factor_name_conflict", `A factor with the friendly name "" for this user already exists`)
	user := s.do("GET", "/user", nil, as(in.access())).ok(200)
	same(t, "status", user.str("factors.0.status"), "unverified")
	if strings.Contains(user.text, secret) {
		t.Error("the secret is shown again")
	}

	// Where one counts already, another one needs it.
	s.stepUp(in.access(), app{r.str("id"), secret})
	weak := s.login("a@example.com", password).ok(200)
	s.do("POST", "/factors", object{"factor_type": "totp", "friendly_name": "second"}, as(weak.access())).
		refused(403, "insufficient_aal", "AAL2 required to enroll a new factor")

	few := s.serve(func(c *auth.Config) { withTOTP(c); c.MaxFactors = 1 })
	other := s.signUp("b@example.com")
	s.enroll(other.access(), "one")
	s.doOn(few, "POST", "/factors", object{"factor_type": "totp", "friendly_name": "two"}, as(other.access())).
		refused(422, "too_many_enrolled_mfa_factors", "Maximum number of verified factors reached, unenroll to continue")
}

// spec: auth:132
func TestStepUp(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			t.Parallel()
			testStepUp(t, start(t, func(c *auth.Config) { withTOTP(c); c.RefreshTokenVersion = version }))
		})
	}
}

func testStepUp(t *testing.T, s *stack) {
	in := s.signUp("a@example.com")
	other := s.login("a@example.com", password).ok(200)
	s.clock.pass(time.Second)
	before := s.renew(in.refresh()).ok(200)
	a := s.enroll(in.access(), "phone")
	spare := s.enroll(in.access(), "never used")
	s.clock.pass(time.Second)
	challenge := s.challenge(in.access(), a)

	wrong := "000000"
	if auth.TOTPFits(a.secret, wrong, s.clock.now()) {
		wrong = "111111"
	}
	s.verifyFactor(in.access(), a, challenge, "").refused(400, "validation_failed", "Code needs to be non-empty")
	s.verifyFactor(in.access(), a, challenge, wrong).refused(422, "mfa_verification_failed", "Invalid TOTP code entered")
	code := auth.TOTPAt(a.secret, s.clock.now())
	const noChallenge = "MFA factor with the provided challenge ID not found"
	s.verifyFactor(in.access(), a, in.id(), code).refused(422, "mfa_factor_not_found", noChallenge)
	s.verifyFactor(in.access(), spare, challenge, code).refused(422, "mfa_factor_not_found", noChallenge)
	from := func(r *http.Request) { r.RemoteAddr = "203.0.113.7:1" }
	const elsewhere = "Challenge and verify IP addresses mismatch."
	s.verifyFactor(in.access(), a, challenge, code, from).refused(422, "mfa_ip_address_mismatch", elsewhere)

	r := s.verifyFactor(in.access(), a, challenge, code).ok(200)
	claims := r.claims()
	same(t, "aal", claims["aal"], any("aal2"))
	same(t, "session", claims["session_id"], in.claims()["session_id"])
	same(t, "amr", []any{claims["amr"].([]any)[0].(object)["method"], claims["amr"].([]any)[1].(object)["method"]}, []any{"totp", "password"})
	s.do("GET", "/user", nil, as(other.access())).refused(403, "session_not_found", "Session from session_id claim in JWT does not exist")
	same(t, "factors", len(r.at("user.factors").([]any)), 1)
	same(t, "status", r.str("user.factors.0.status"), "verified")
	for _, old := range []*reply{in, before} {
		s.renew(old.refresh()).refused(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
	}
	same(t, "aal after a refresh", s.renew(r.refresh()).ok(200).claims()["aal"], any("aal2"))
	s.verifyFactor(in.access(), a, challenge, code).refused(422, "mfa_ip_address_mismatch", elsewhere) // used

	s.clock.pass(time.Minute)
	late := s.challenge(in.access(), a)
	s.clock.pass(5*time.Minute + time.Second)
	s.verifyFactor(in.access(), a, late, auth.TOTPAt(a.secret, s.clock.now())).
		refused(422, "mfa_challenge_expired", "MFA challenge "+late+" has expired, verify against another challenge or create a new challenge.")
	if got := strings.Join(s.actions(), " "); !strings.Contains(got, "challenge_created") || !strings.Contains(got, "factor_in_progress") || !strings.Contains(got, "verification_attempted") {
		t.Errorf("audit %s", got)
	}
}

// spec: auth:133
func TestFactorOfAnother(t *testing.T) {
	t.Parallel()
	s := start(t, withTOTP)
	mine, other := s.signUp("a@example.com"), s.signUp("b@example.com")
	a := s.enroll(mine.access(), "phone")
	challenge := s.challenge(mine.access(), a)
	const text = "Factor not found"
	s.do("POST", "/factors/"+a.id+"/challenge", nil, as(other.access())).refused(404, "mfa_factor_not_found", text)
	s.verifyFactor(other.access(), a, challenge, auth.TOTPAt(a.secret, s.clock.now())).refused(404, "mfa_factor_not_found", text)
	s.do("DELETE", "/factors/"+a.id, nil, as(other.access())).refused(404, "mfa_factor_not_found", text)
	s.do("DELETE", "/factors/x", nil, as(other.access())).refused(404, "validation_failed", "factor_id must be an UUID")
	s.do("PUT", "/admin/users/"+other.id()+"/factors/"+a.id, object{}, admin).refused(404, "mfa_factor_not_found", text)
	same(t, "factors", s.count("select count(*) from auth.mfa_factors"), 1)

	off := s.serve(nil)
	s.doOn(off, "POST", "/factors/"+a.id+"/challenge", nil, as(mine.access())).
		refused(422, "mfa_totp_verify_not_enabled", "MFA verification is disabled for TOTP")
}

// spec: auth:134
func TestUnenroll(t *testing.T) {
	t.Parallel()
	s := start(t, withTOTP)
	in := s.signUp("a@example.com")
	a := s.enroll(in.access(), "phone")
	s.clock.pass(time.Second)
	strong := s.stepUp(in.access(), a)
	weak := s.login("a@example.com", password).ok(200)
	s.do("PUT", "/user", object{"password": "a new one"}, as(weak.access())).ok(401)
	s.do("DELETE", "/factors/"+a.id, nil, as(weak.access())).refused(422, "insufficient_aal", "AAL2 required to unenroll verified factor")
	r := s.do("DELETE", "/factors/"+a.id, nil, as(strong.access())).ok(200)
	same(t, "body", r.body, object{"id": a.id})
	next := s.renew(strong.refresh()).ok(200)
	same(t, "aal", next.claims()["aal"], any("aal1"))
	same(t, "amr", len(next.claims()["amr"].([]any)), 1)

	// Who has not verified a factor may drop it; an administrator any.
	b := s.enroll(in.access(), "tablet")
	s.do("DELETE", "/factors/"+b.id, nil, as(next.access())).ok(200)
	b = s.enroll(in.access(), "tablet")
	s.stepUp(next.access(), b)
	path := "/admin/users/" + in.id() + "/factors/" + b.id
	same(t, "name", s.do("PUT", path, object{"friendly_name": "old tablet"}, admin).ok(200).str("friendly_name"), "old tablet")
	same(t, "list", s.decode(s.do("GET", "/admin/users/"+in.id()+"/factors", nil, admin).ok(200))[0].(object)["friendly_name"], any("old tablet"))
	same(t, "deleted", s.do("DELETE", path, nil, admin).ok(200).str("id"), b.id)
	s.do("DELETE", path, nil, admin).ok(404)
	s.do("DELETE", path, nil, as(next.access())).refused(403, "not_admin", "User not allowed")
}

// spec: auth:135
func TestForgottenFactors(t *testing.T) {
	t.Parallel()
	s := start(t, withTOTP)
	in := s.signUp("a@example.com")
	s.enroll(in.access(), "forgotten")
	asked := s.enroll(in.access(), "challenged")
	s.challenge(in.access(), asked)
	s.clock.pass(5 * time.Minute)
	s.do("POST", "/factors", object{"factor_type": "totp", "friendly_name": "forgotten"}, as(in.access())).ok(422)
	s.clock.pass(time.Second)
	s.enroll(in.access(), "forgotten")
	same(t, "names", s.text("select string_agg(friendly_name, ' ' order by friendly_name) from auth.mfa_factors"), "challenged forgotten")
}

// Codes are counted for all nodes: ten at once, and then one in half a minute, right
// or wrong.
func TestFactorGuesses(t *testing.T) {
	t.Parallel()
	s := start(t, withTOTP)
	in := s.signUp("a@example.com")
	a := s.enroll(in.access(), "phone")
	challenge := s.challenge(in.access(), a)
	other := s.serve(withTOTP)
	for range 10 {
		s.doOn(other, "POST", "/factors/"+a.id+"/verify", object{"challenge_id": challenge, "code": "x"}, as(in.access())).ok(422)
	}
	s.verifyFactor(in.access(), a, challenge, auth.TOTPAt(a.secret, s.clock.now())).refused(429, "over_request_rate_limit", "Request rate limit reached")
	s.clock.pass(30 * time.Second)
	s.verifyFactor(in.access(), a, challenge, auth.TOTPAt(a.secret, s.clock.now())).ok(200)
}

func TestParallelStepUp(t *testing.T) {
	t.Parallel()
	s := start(t, withTOTP)
	in := s.signUp("a@example.com")
	a := s.enroll(in.access(), "phone")
	challenge, code := s.challenge(in.access(), a), auth.TOTPAt(a.secret, s.clock.now())
	var wg sync.WaitGroup
	status := make([]int, 8)
	for i := range status {
		wg.Go(func() {
			if i%2 == 0 {
				status[i] = s.verifyFactor(in.access(), a, challenge, code).status
			} else if code := s.renew(in.refresh()).status; code >= 500 {
				t.Errorf("refresh: %d", code)
			}
		})
	}
	wg.Wait()
	good := 0
	for _, code := range status {
		if code == 200 {
			good++
		}
	}
	same(t, "accepted", good, 1)
}

// Who has the password and has seen a code cannot use it again, nor one that was not
// used when a later one was.
func TestTOTPCodeIsGoodOnce(t *testing.T) {
	t.Parallel()
	s := start(t, withTOTP)
	in := s.signUp("a@example.com")
	a := s.enroll(in.access(), "phone")
	now := s.clock.now()
	early, code, next := auth.TOTPAt(a.secret, now.Add(-30*time.Second)), auth.TOTPAt(a.secret, now), auth.TOTPAt(a.secret, now.Add(30*time.Second))
	s.verifyFactor(in.access(), a, s.challenge(in.access(), a), code).ok(200)

	thief := s.login("a@example.com", password).ok(200)
	nodes := []*auth.Server{s.server, s.serve(withTOTP)}
	again := func(code string) *reply {
		s.clock.pass(29 * time.Second)
		if err := s.server.Clean(t.Context()); err != nil { // it must not forget what still counts
			t.Fatal(err)
		}
		return s.doOn(nodes[1], "POST", "/factors/"+a.id+"/verify", object{"challenge_id": s.challenge(thief.access(), a), "code": code}, as(thief.access()))
	}
	s.verifyFactor(thief.access(), a, s.challenge(thief.access(), a), early).refused(422, "mfa_verification_failed", "Invalid TOTP code entered")
	again(code).refused(422, "mfa_verification_failed", "Invalid TOTP code entered")
	again(code).refused(422, "mfa_verification_failed", "Invalid TOTP code entered")
	same(t, "the next code", again(next).ok(200).claims()["aal"], any("aal2"))
}

// Of challenges that are answered at once with one code, on several nodes, one is.
func TestTOTPCodeIsGoodOnceInParallel(t *testing.T) {
	t.Parallel()
	s := start(t, withTOTP)
	in := s.signUp("a@example.com")
	a := s.enroll(in.access(), "phone")
	code := auth.TOTPAt(a.secret, s.clock.now())
	nodes := []*auth.Server{s.server, s.serve(withTOTP)}
	var wg sync.WaitGroup
	status := make([]int, 6)
	for i := range status {
		challenge := s.challenge(in.access(), a)
		wg.Go(func() {
			status[i] = s.doOn(nodes[i%2], "POST", "/factors/"+a.id+"/verify", object{"challenge_id": challenge, "code": code}, as(in.access())).status
		})
	}
	wg.Wait()
	slices.Sort(status)
	same(t, "answers", status, []int{200, 422, 422, 422, 422, 422})
}

// The period of a code is the one that it was made for.
func TestTOTPStep(t *testing.T) {
	t.Parallel()
	const secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
	for off := int64(-2); off <= 2; off++ {
		at := time.Unix(1234567890, 0)
		step, found := auth.TOTPStep(secret, auth.TOTPAt(secret, at.Add(time.Duration(off)*30*time.Second)), at)
		if want := off >= -1 && off <= 1; found != want || found && step != at.Unix()/30+off {
			t.Errorf("%d periods away: %d, %v", off, step, found)
		}
	}
}

func FuzzTOTP(f *testing.F) {
	f.Add("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "287082", int64(59))
	f.Add("a=", "", int64(-1))
	f.Fuzz(func(t *testing.T, secret, code string, at int64) {
		if auth.TOTPFits(secret, code, time.Unix(at, 0)) && (len(code) != 6 || strings.Trim(code, "0123456789") != "") {
			t.Fatalf("%q fits", code)
		}
	})
}

func FuzzQR(f *testing.F) {
	f.Add("otpauth://totp/x:y?secret=z")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		svg, err := auth.QRSVG(text)
		if err == nil && (!strings.HasPrefix(svg, "<svg ") || !strings.HasSuffix(svg, "</g></svg>")) {
			t.Fatalf("%q becomes %q", text, svg)
		}
	})
}

// An enrolment that was left over gives nobody the second level who may not enroll
// a new factor.
func TestOldEnrolmentNeedsTheSecondFactor(t *testing.T) {
	t.Parallel()
	s, x := withPhones(t, withTOTP)
	s.signUp("a@example.com")
	thief := s.login("a@example.com", password).ok(200)
	old := s.enroll(thief.access(), "old")
	s.challenge(thief.access(), old)

	owner := s.login("a@example.com", password).ok(200)
	f := s.do("POST", "/factors", object{"factor_type": "phone", "friendly_name": "mine", "phone": phone}, as(owner.access())).ok(200).str("id")
	challenge := s.do("POST", "/factors/"+f+"/challenge", nil, as(owner.access())).ok(200).str("id")
	s.do("POST", "/factors/"+f+"/verify", object{"challenge_id": challenge, "code": x.take(t, phone)}, as(owner.access())).ok(200)
	s.clock.pass(2 * time.Hour)

	again := s.login("a@example.com", password).ok(200)
	s.verifyFactor(again.access(), old, s.challenge(again.access(), old), auth.TOTPAt(old.secret, s.clock.now())).
		refused(403, "insufficient_aal", "AAL2 required to enroll a new factor")
}
