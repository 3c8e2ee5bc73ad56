package auth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/auth"
)

// spec: auth-sec:4
func TestImplausibleTokens(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	now := s.clock.now()
	sign := func(change object) string {
		claims := in.claims()
		for k, v := range change {
			if v == nil {
				delete(claims, k)
			} else {
				claims[k] = v
			}
		}
		tok, err := s.keys.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	user := func(change object) *reply { return s.do("GET", "/user", nil, as(sign(change))) }
	const bad = "invalid JWT: unable to parse or verify signature, token has invalid claims: "
	user(nil).ok(200)
	user(object{"exp": nil}).refused(403, "bad_jwt", bad+"a claim is missing or of the wrong type")
	user(object{"exp": now.Unix()}).refused(403, "bad_jwt", bad+"token is expired")
	user(object{"exp": now.Add(7 * 24 * time.Hour).Unix()}).ok(200)
	user(object{"exp": now.Add(8 * 24 * time.Hour).Unix()}).refused(403, "bad_jwt", bad+"token lives too long")
	user(object{"iat": now.Unix() + 5}).ok(200)
	user(object{"iat": now.Unix() + 60}).refused(403, "bad_jwt", bad+"token used before issued")
	// Of another issuer, that is its business.
	user(object{"iss": "https://other.example", "iat": now.Unix() + 60, "exp": now.Add(8 * 24 * time.Hour).Unix()}).ok(200)
}

// Who calls is told by headers alone, which no other site can send: no cookie is read,
// and none is set.
//
// spec: auth-sec:49
func TestNoCookies(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnableAnonymous = true })
	in := s.signUp("a@example.com")
	cookie := with("Cookie", "sb-access-token="+in.access()+"; sb-127-auth-token="+in.access()+"; access_token="+in.access())
	s.do("GET", "/user", nil, cookie, with("Authorization", "")).refused(401, "no_authorization", "This endpoint requires a valid Bearer token")
	s.do("POST", "/logout", nil, cookie, with("Authorization", "")).ok(401)
	other := s.signUp("b@example.com")
	same(t, "the bearer's user", s.do("GET", "/user", nil, cookie, as(other.access())).ok(200).str("id"), other.id())
	for _, r := range []*reply{
		in, s.login("a@example.com", password), s.renew(in.refresh()), s.do("POST", "/signup", object{}), s.do("POST", "/otp", object{"email": "a@example.com"}, cookie),
		s.do("GET", "/user", nil, as(in.access()), cookie), s.do("POST", "/logout", nil, as(other.access())),
		s.do("GET", "/verify?type=signup&token=x", nil, cookie), s.do("GET", "/callback?state="+uuid.NewString(), nil, cookie),
	} {
		if got := r.header.Values("Set-Cookie"); len(got) > 0 || strings.Contains(r.header.Get("Location"), in.access()) {
			t.Errorf("%s sets %q, sends to %q", r.call, got, r.header.Get("Location"))
		}
	}
}

// Intervals do not depend on the zone in which the database thinks: refreshed_at has
// none and holds UTC, and so do the times of one-time tokens.
//
// spec: auth-sec:57
func TestZoneOfTheDatabase(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.Exec("alter role supabase_auth_admin set timezone = 'Pacific/Kiritimati'") // UTC+14
	s.server = s.serve(func(c *auth.Config) {
		c.SessionInactivity = time.Hour
		c.EmailAutoconfirm = false
	})
	same(t, "zone", s.text("select current_setting('timezone')") != "", true)
	s.do("POST", "/admin/users", object{"email": "a@example.com", "password": password, "email_confirm": true}, admin).ok(200)
	in := s.login("a@example.com", password).ok(200)
	s.clock.pass(59 * time.Minute)
	in = s.renew(in.refresh()).ok(200)
	now := s.clock.now()
	same(t, "refreshed_at", s.text("select refreshed_at::text from auth.sessions"), now.UTC().Format("2006-01-02 15:04:05"))
	same(t, "created_at", in.at("user.created_at"), any("2026-05-01T12:00:00Z"))
	s.clock.pass(59 * time.Minute)
	if err := s.server.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	in = s.renew(in.refresh()).ok(200)
	s.do("POST", "/recover", object{"email": "a@example.com"}).ok(200)
	code := s.letter("a@example.com").code
	same(t, "token's time", s.text("select created_at::text from auth.one_time_tokens"), s.clock.now().UTC().Format("2006-01-02 15:04:05"))
	s.clock.pass(59 * time.Minute)
	if err := s.server.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.do("POST", "/verify", object{"type": "recovery", "email": "a@example.com", "token": code}).ok(200)
	s.clock.pass(2 * time.Minute)
	s.renew(in.refresh()).refused(400, "session_expired", "Invalid Refresh Token: Session Expired (Inactivity)")
}

// The suite runs every test under the race detector, and the fuzz targets of what
// strangers send.
//
// spec: auth:153
func TestSuiteRacesAndFuzzes(t *testing.T) {
	t.Parallel()
	read := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	suite := read("../tools/test.sh")
	for _, step := range []string{"go test -race", "tools/fuzz.sh"} {
		if !strings.Contains(suite, step) {
			t.Errorf("tools/test.sh does not run %q", step)
		}
	}
	own := read("fuzz_test.go") + read("redirect_test.go") + read("../token/token_test.go") +
		read("refresh_test.go") + read("otp_test.go") + read("pkce_test.go")
	for _, name := range []string{
		"FuzzRefreshToken", "FuzzVerify", "FuzzRedirect", "FuzzAPIVersion", "TestParallelRefresh", "TestParallelVerify", "TestParallelExchange",
	} {
		if !strings.Contains(own, "func "+name+"(") {
			t.Errorf("there is no %s", name)
		}
	}
}

// spec: auth-sec:18
func TestBreachedPasswords(t *testing.T) {
	t.Parallel()
	// SHA-1 of "password": 5BAA6 1E4C9B93F3F0682250B6CF8331B7EE68FD8.
	var asked atomic.Value
	var mode atomic.Value
	mode.Store("")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.Path)
		switch mode.Load() {
		case "broken":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "padded":
			fmt.Fprint(w, "1E4C9B93F3F0682250B6CF8331B7EE68FD8:0\r\n")
		default:
			fmt.Fprint(w, "0018A45C4D1DEF81644B54AB7F969B88D65:1\r\n1E4C9B93F3F0682250B6CF8331B7EE68FD8:3730471\r\n")
		}
	}))
	t.Cleanup(srv.Close)
	s := start(t, func(c *auth.Config) {
		c.RefuseBreached, c.BreachedURL, c.MinPasswordLength = true, srv.URL+"/range/", 9
	})
	const text = "Password is known to be weak and easy to guess, please choose a different one."
	r := s.do("POST", "/signup", object{"email": "a@example.com", "password": "password"}).
		refused(422, "weak_password", "Password should be at least 9 characters. "+text)
	same(t, "reasons", r.at("weak_password.reasons"), any([]any{"length", "pwned"}))
	same(t, "what leaves the machine", asked.Load(), any("/range/5BAA6"))
	in := s.signUp("a@example.com")
	s.do("PUT", "/user", object{"password": "password"}, as(in.access())).ok(422)
	s.do("POST", "/admin/users", object{"email": "b@example.com", "password": "password", "email_confirm": true}, admin).ok(200)
	got := s.login("b@example.com", "password").ok(200)
	same(t, "told at sign-in", got.at("weak_password.reasons"), any([]any{"length", "pwned"}))
	for _, m := range []string{"padded", "broken"} {
		mode.Store(m)
		r := s.do("PUT", "/user", object{"password": "password"}, as(in.access())).ok(422)
		same(t, m, r.at("weak_password.reasons"), any([]any{"length"}))
	}
	if strings.Contains(s.log.String(), "1E4C9B93") {
		t.Error("the log holds a hash")
	}
}
