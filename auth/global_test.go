package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/token"
)

// spec: auth:1
func TestHealth(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.Version = "9.9" })
	r := s.do("GET", "/health", nil, with("apikey", ""), with("Authorization", "")).ok(200)
	same(t, "name", r.str("name"), "GoTrue")
	same(t, "version", r.str("version"), "9.9")
	s.do("HEAD", "/health", nil).ok(200)
}

// spec: auth:2
func TestSettings(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	r := s.do("GET", "/settings", nil).ok(200)
	var names []string
	for name := range r.at("external").(object) {
		names = append(names, name)
	}
	slices.Sort(names)
	same(t, "providers", names, []string{
		"anonymous_users", "apple", "azure", "bitbucket", "discord", "email", "facebook", "figma", "fly", "github", "gitlab",
		"google", "kakao", "keycloak", "linkedin", "linkedin_oidc", "notion", "phone", "slack", "slack_oidc", "snapchat",
		"spotify", "twitch", "twitter", "workos", "zoom",
	})
	delete(r.body, "external")
	same(t, "settings", r.body, object{
		"disable_signup": false, "mailer_autoconfirm": true, "phone_autoconfirm": false, "sms_provider": "",
		"saml_enabled": false, "saml_private_key_next_configured": false, "passkeys_enabled": false,
	})

	other := s.serve(func(c *auth.Config) {
		c.EnableSignup, c.EnableAnonymous, c.EnablePhone, c.PhoneAutoconfirm = false, true, true, true
		c.EnableEmail, c.EmailAutoconfirm = false, false
	})
	r = s.doOn(other, "GET", "/settings", nil).ok(200)
	for path, want := range map[string]any{
		"external.email": false, "external.phone": true, "external.anonymous_users": true,
		"disable_signup": true, "mailer_autoconfirm": false, "phone_autoconfirm": true,
	} {
		same(t, path, r.at(path), want)
	}
}

// spec: auth:54 auth:58 auth-sec:8
func TestJWKS(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	r := s.do("GET", "/.well-known/jwks.json", nil, with("apikey", ""), with("Authorization", "")).ok(200)
	same(t, "Cache-Control", r.header.Get("Cache-Control"), "public, max-age=600")
	keys := r.at("keys").([]any)
	if len(keys) != 1 {
		t.Fatalf("%d keys: %s", len(keys), r.text)
	}
	key := keys[0].(object)
	same(t, "use", key["use"], any("sig"))
	same(t, "key_ops", key["key_ops"], any([]any{"verify"}))
	same(t, "kty", key["kty"], any("EC"))
	for _, private := range []string{"d", "k", "p", "q"} {
		if _, found := key[private]; found {
			t.Errorf("the public key has the private member %q", private)
		}
	}
	in := s.signUp("a@example.com")
	parsed, _, err := jwt.NewParser().ParseUnverified(in.access(), jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "alg", parsed.Header["alg"], any("ES256"))
	same(t, "kid", parsed.Header["kid"], key["kid"])

	// A keyring that would leak does not do so through us.
	shown := string(auth.PublicKeys([]byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kty":"EC","kid":"1","d":"private","x":"1","y":"2"}]}`)))
	if strings.Contains(shown, "c2VjcmV0") || strings.Contains(shown, "private") {
		t.Errorf("private members are shown: %s", shown)
	}
	same(t, "no keys", string(auth.PublicKeys([]byte(`{}`))), `{"keys":[]}`)
}

func TestOpenIDConfiguration(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	r := s.do("GET", "/.well-known/openid-configuration", nil).ok(200)
	same(t, "issuer", r.str("issuer"), issuer)
	same(t, "jwks_uri", r.str("jwks_uri"), issuer+"/.well-known/jwks.json")
}

// spec: auth:3 auth:4 auth:5
func TestErrorFormats(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct {
		version string
		modern  bool
	}{
		{"", false},
		{"2023-01-01", false},
		{"2023-12-31", false},
		{"garbage", false},
		{"2024-13-01", false},
		{"2024-01-01x", false},
		{"2024-01-01", true},
		{"2030-01-01", true},
	} {
		r := s.do("POST", "/token?grant_type=password", object{"email": "nobody@example.com", "password": "x"},
			with("X-Supabase-Api-Version", c.version)).ok(400)
		want := object{"code": float64(400), "error_code": "invalid_credentials", "msg": "Invalid login credentials"}
		echo := ""
		if c.modern {
			want = object{"code": "invalid_credentials", "message": "Invalid login credentials"}
			echo = "2024-01-01"
		}
		same(t, "body for version "+c.version, r.body, want)
		same(t, "version echoed for "+c.version, r.header.Get("X-Supabase-Api-Version"), echo)
		same(t, "x-sb-error-code for "+c.version, r.header.Get("x-sb-error-code"), "invalid_credentials")
		same(t, "X-Sluice-Code for "+c.version, r.header.Get("X-Sluice-Code"), "invalid_credentials")
	}
}

// spec: auth:7 auth:8 auth:9
func TestBodies(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, body := range []string{
		"", " ", "{", "[]", `"text"`, `{"email":1}`, `{"email":"a@b.c","password":["x"]}`, `{"data":"text"}`, `{"data":[]}`,
		"{}\x00", `{"email":"a@example.com"} x`, "{\"email\":\"\xff\"}", `{"email":"a@example.com","password":"123456\u0000"}`,
	} {
		r := s.do("POST", "/signup", body).ok(400)
		same(t, "code of "+body, r.at("code"), any("bad_json"))
		if !strings.HasPrefix(r.str("message"), "Could not parse request body as JSON: ") {
			t.Errorf("message of %q: %s", body, r.text)
		}
	}
	fill := func(n int) string {
		head := `{"email":"nobody@example.com","password":"x","filling":"`
		return head + strings.Repeat("f", n-len(head)-2) + `"}`
	}
	s.do("POST", "/token?grant_type=password", fill(1<<20+1)).
		refused(413, "request_entity_too_large", "Request body too large (max 1048576 bytes)")
	s.do("POST", "/token?grant_type=password", fill(1<<20)).refused(400, "invalid_credentials", "Invalid login credentials")
	s.do("POST", "/signup", `{"email":"a@example.com","password":"correct horse","data":null,"phone":null,"code_challenge":null,
		"code_challenge_method":null,"gotrue_meta_security":{},"unknown":1}`, with("Content-Type", "text/plain")).ok(200)
}

// spec: auth-sec:42
func TestMetadataIsBounded(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	for what, data := range map[string]string{
		"too large":           `{"k":"` + strings.Repeat("x", auth.MaxMetadata) + `"}`,
		"too deep":            `{"k":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
		"number out of range": `{"k":1e999}`,
	} {
		r := s.do("PUT", "/user", `{"data":`+data+`}`, as(in.access())).ok(400)
		same(t, what, r.str("code"), "validation_failed")
	}
	// Several requests may not add up to more either.
	half := strings.Repeat("x", auth.MaxMetadata*2/3)
	s.do("PUT", "/user", object{"data": object{"a": half}}, as(in.access())).ok(200)
	s.do("PUT", "/user", object{"data": object{"b": half}}, as(in.access())).ok(400)
	// What PostgreSQL would refuse is made harmless.
	r := s.do("PUT", "/user", `{"data":{"a":null,"k":"\ud800","n":12345678901234567890}}`, as(in.access())).ok(200)
	same(t, "lone surrogate", r.str("user_metadata.k"), "\ufffd")
	if !strings.Contains(r.text, "12345678901234567890") {
		t.Errorf("a long number lost digits: %s", r.text)
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	hurried := s.serve(func(c *auth.Config) { c.RequestTimeout = time.Nanosecond })
	s.doOn(hurried, "POST", "/token?grant_type=password", object{"email": "a@example.com", "password": "x"}).
		refused(504, "request_timeout", "Processing this request timed out, please retry after a moment.")
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	r := s.do("GET", "/nowhere", nil).ok(404)
	same(t, "X-Sluice-Code", r.header.Get("X-Sluice-Code"), string(sluice.CodeRouteNotFound))
	r = s.do("DELETE", "/user", nil).ok(405)
	same(t, "Allow", r.header.Get("Allow"), "GET, PUT")
	same(t, "X-Sluice-Code", r.header.Get("X-Sluice-Code"), string(sluice.CodeMethodNotServed))
	for _, path := range []string{"/user", "/user/", "//user//"} {
		s.do("GET", path, nil, with("Authorization", "")).refused(401, "no_authorization", "This endpoint requires a valid Bearer token")
	}
}

// spec: auth:10 auth:11 auth:12
func TestBearer(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	const text = "This endpoint requires a valid Bearer token"
	s.do("GET", "/user", nil, with("Authorization", "")).refused(401, "no_authorization", text)
	s.do("GET", "/user", nil, with("Authorization", "Basic abc")).refused(401, "no_authorization", text)
	s.do("GET", "/user", nil, with("Authorization", "Bearer ")).refused(401, "no_authorization", text)
	for _, scheme := range []string{"Bearer", "bearer", "BEARER"} {
		s.do("GET", "/user", nil, with("Authorization", scheme+" "+in.access())).ok(200)
	}
	for _, key := range []string{token.LegacyKey(token.DevJWTSecret, "anon"), token.LegacyKey(token.DevJWTSecret, "service_role"), token.DevPublishableKey, token.DevSecretKey} {
		s.do("GET", "/user", nil, as(key)).refused(403, "bad_jwt", "invalid claim: missing sub claim")
	}

	claims := jwt.MapClaims{
		"sub": in.id(), "role": "authenticated", "aud": "authenticated", "session_id": in.str("user.id"),
		"exp": s.clock.now().Add(time.Hour).Unix(),
	}
	sign := func(method jwt.SigningMethod, key any, kid string, change func(jwt.MapClaims)) string {
		t.Helper()
		c := jwt.MapClaims{}
		for k, v := range claims {
			c[k] = v
		}
		if change != nil {
			change(c)
		}
		tok := jwt.NewWithClaims(method, c)
		if kid != "" {
			tok.Header["kid"] = kid
		}
		text, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	secret := []byte(token.DevJWTSecret)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const kid = "b81269f1-21d8-4f2e-b719-c2240a840d90"
	const prefix = "invalid JWT: unable to parse or verify signature, "
	for what, tok := range map[string]string{
		"garbage":                    "garbage",
		"three parts of garbage":     "a.b.c",
		"none":                       sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", nil),
		"wrong secret":               sign(jwt.SigningMethodHS256, []byte("another secret of enough characters"), "", nil),
		"wrong key":                  sign(jwt.SigningMethodES256, stranger, kid, nil),
		"HS256 under a public kid":   sign(jwt.SigningMethodHS256, secret, kid, nil),
		"HS256 with the public key":  sign(jwt.SigningMethodHS256, []byte("M5Sjqn5zwC9Kl1zVfUUGvv9boQjCGd45G8sdopBExB4"), kid, nil),
		"no exp":                     sign(jwt.SigningMethodHS256, secret, "", func(c jwt.MapClaims) { delete(c, "exp") }),
		"signature of another token": in.access()[:strings.LastIndex(in.access(), ".")] + ".AAAA",
	} {
		r := s.do("GET", "/user", nil, as(tok)).ok(403)
		if r.at("code") != "bad_jwt" || !strings.HasPrefix(r.str("message"), prefix) {
			t.Errorf("%s: %s", what, r.text)
		}
		s.do("GET", "/admin/users", nil, as(tok)).ok(403)
	}
	expired := sign(jwt.SigningMethodHS256, secret, "", func(c jwt.MapClaims) { c["exp"] = s.clock.now().Add(-time.Second).Unix() })
	s.do("GET", "/user", nil, as(expired)).refused(403, "bad_jwt", prefix+"token has invalid claims: token is expired")

	odd := sign(jwt.SigningMethodHS256, secret, "", func(c jwt.MapClaims) { c["sub"] = "bob" })
	s.do("GET", "/user", nil, as(odd)).refused(400, "bad_jwt", "invalid claim: sub claim must be a UUID")
	odd = sign(jwt.SigningMethodHS256, secret, "", func(c jwt.MapClaims) { c["session_id"] = "bob" })
	if r := s.do("GET", "/user", nil, as(odd)).ok(403); r.at("code") != "bad_jwt" {
		t.Errorf("session_id is no UUID: %s", r.text)
	}
	// The session of somebody else is none.
	other := s.signUp("b@example.com")
	odd = sign(jwt.SigningMethodHS256, secret, "", func(c jwt.MapClaims) { c["session_id"] = other.claims()["session_id"] })
	s.do("GET", "/user", nil, as(odd)).refused(403, "session_not_found", "Session from session_id claim in JWT does not exist")
	// A token of another issuer without session works.
	for _, none := range []any{nil, uuid.Nil.String()} {
		odd = sign(jwt.SigningMethodHS256, secret, "", func(c jwt.MapClaims) { c["session_id"] = none; delete(c, "session_id") })
		s.do("GET", "/user", nil, as(odd)).ok(200)
	}
}

// spec: auth:55
func TestKeysAndTokensOfTheSecretStayGood(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	before := keyring(t, func(c *token.Config) { c.SigningKeys = ""; c.Now = s.clock.now })
	old := s.serve(func(c *auth.Config) { c.Keys = before })
	in := s.doOn(old, "POST", "/signup", object{"email": "a@example.com", "password": password}).ok(200)
	parsed, _, err := jwt.NewParser().ParseUnverified(in.access(), jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "alg", parsed.Header["alg"], any("HS256"))
	s.do("GET", "/user", nil, as(in.access())).ok(200)
	service := token.LegacyKey(token.DevJWTSecret, "service_role")
	s.do("GET", "/admin/users", nil, with("apikey", service), as(service)).ok(200)
}

// spec: auth:13 auth:14 auth-sec:39 auth-sec:40
func TestUserOfTokenIsGone(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	banned := s.signUp("b@example.com")
	out := s.signUp("c@example.com")

	s.do("DELETE", "/admin/users/"+in.id(), nil, admin).ok(200)
	s.do("GET", "/user", nil, as(in.access())).refused(403, "user_not_found", "User from sub claim in JWT does not exist")
	s.Exec("delete from auth.sessions where user_id = $1", out.id())
	s.do("GET", "/user", nil, as(out.access())).refused(403, "session_not_found", "Session from session_id claim in JWT does not exist")

	s.do("PUT", "/admin/users/"+banned.id(), object{"ban_duration": "30m"}, admin).ok(200)
	for _, call := range [][2]string{{"GET", "/user"}, {"PUT", "/user"}, {"POST", "/logout"}} {
		s.do(call[0], call[1], object{}, as(banned.access())).refused(403, "user_banned", "User is banned")
	}
	s.clock.pass(31 * time.Minute)
	s.do("GET", "/user", nil, as(banned.access())).ok(200)
}

// spec: auth:15
func TestAudience(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.do("GET", "/user", nil, as(in.access()), with("X-JWT-AUD", "other")).
		refused(400, "validation_failed", "Token audience doesn't match request audience")
	s.do("GET", "/user", nil, as(in.access()), with("X-JWT-AUD", "authenticated")).ok(200)
	// Users of another audience are apart.
	s.do("POST", "/token?grant_type=password", object{"email": "a@example.com", "password": password}, with("X-JWT-AUD", "other")).
		refused(400, "invalid_credentials", "Invalid login credentials")
}

// Nobody makes himself a user of an audience that an administrator keeps apart, and
// nobody takes an address away by doing so.
func TestNobodySignsUpForAnotherAudience(t *testing.T) {
	t.Parallel()
	s, x := withPhones(t, func(c *auth.Config) { c.EmailAutoconfirm, c.EnableAnonymous = false, true })
	other := with("X-JWT-AUD", "staff")
	bodies := []object{{"email": "a@example.com"}, {"phone": phone}}
	for _, body := range bodies {
		for _, path := range []string{"/signup", "/otp"} {
			body["password"] = password
			s.do("POST", path, body, other).refused(422, "signup_disabled", "Signups not allowed for this instance")
		}
	}
	s.do("POST", "/signup", object{}, other).refused(422, "signup_disabled", "Signups not allowed for this instance")
	same(t, "users", s.count("select count(*) from auth.users"), 0)
	for _, body := range bodies {
		s.do("POST", "/signup", body).ok(200)
	}
	s.letter("a@example.com")
	x.take(t, phone)

	// Whom an administrator let in signs in by a mail, and his address tells
	// nobody of him.
	s.do("POST", "/admin/users", object{"email": "b@example.com", "aud": "staff", "email_confirm": true}, admin).ok(200)
	s.do("POST", "/otp", object{"email": "b@example.com"}, other).ok(200)
	verify := object{"type": "email", "email": "b@example.com", "token": s.letter("b@example.com").code}
	in := s.do("POST", "/verify", verify, other).ok(200)
	same(t, "aud", in.claims()["aud"], any("staff"))
	s.do("GET", "/user", nil, as(in.access())).ok(200)
	s.clock.pass(time.Minute)
	r := s.do("POST", "/signup", object{"email": "b@example.com", "password": password}).ok(200)
	same(t, "a pretended user", len(r.at("identities").([]any)), 0)
	s.noLetter()
}

// The audience of a bearer that is no user's says nothing about whose users are meant:
// keys are made with all kinds of claims.
func TestAudienceOfAKey(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	key, err := s.keys.Sign(object{"role": "anon", "aud": "anon", "exp": s.clock.now().Add(time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	in := s.do("POST", "/signup", object{"email": "a@example.com", "password": password}, as(key)).ok(200)
	same(t, "aud", in.claims()["aud"], any("authenticated"))
	s.do("POST", "/token?grant_type=password", object{"email": "a@example.com", "password": password}, as(key)).ok(200)
}

// spec: auth:130 auth:140
func TestDisabledFeatures(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	for _, c := range []struct {
		method, path  string
		body          any
		who           option
		status        int
		code, message string
	}{
		{"POST", "/sso", object{"domain": "example.com"}, nil, 404, "saml_provider_disabled", "SAML 2.0 is disabled"},
		{"GET", "/sso/saml/metadata", nil, nil, 404, "saml_provider_disabled", "SAML 2.0 is disabled"},
		{"POST", "/sso/saml/acs", nil, nil, 404, "saml_provider_disabled", "SAML 2.0 is disabled"},
		{"GET", "/admin/sso/providers", nil, admin, 404, "saml_provider_disabled", "SAML 2.0 is disabled"},
		{"POST", "/passkeys/authentication/options", object{}, nil, 404, "passkey_disabled", "Passkeys are disabled"},
		{"GET", "/passkeys", nil, nil, 404, "passkey_disabled", "Passkeys are disabled"},
		{"GET", "/user/identities/authorize?provider=google", nil, as(in.access()), 404, "manual_linking_disabled", "Manual linking is disabled"},
		{"DELETE", "/user/identities/" + in.id(), nil, as(in.access()), 404, "manual_linking_disabled", "Manual linking is disabled"},
		{"GET", "/oauth/authorize", nil, nil, 404, "feature_disabled", "OAuth server is disabled"},
		{"GET", "/.well-known/oauth-authorization-server", nil, nil, 404, "feature_disabled", "OAuth server is disabled"},
		{"GET", "/admin/custom-providers", nil, admin, 404, "feature_disabled", "Custom OAuth providers are disabled"},
		{"GET", "/scim/v2/Users", nil, nil, 404, "feature_disabled", "SCIM server is disabled"},
		{"POST", "/token?grant_type=web3", object{}, nil, 422, "web3_provider_disabled", "Web3 provider is disabled"},
		{"GET", "/authorize?provider=google", nil, nil, 400, "validation_failed", "Unsupported provider: provider is not enabled"},
		{"GET", "/authorize?provider=acme", nil, nil, 400, "validation_failed", "Unsupported provider: Provider acme could not be found"},
		{"GET", "/callback", nil, nil, 400, "bad_oauth_callback", "OAuth state parameter missing"},
		{"POST", "/factors", object{"factor_type": "totp"}, as(in.access()), 422, "mfa_totp_enroll_not_enabled", "MFA enroll is disabled for TOTP"},
		{"POST", "/factors", object{"factor_type": "x"}, as(in.access()), 400, "validation_failed", "factor_type needs to be totp, phone, or webauthn"},
		{"POST", "/factors/" + in.id() + "/challenge", object{}, as(in.access()), 404, "mfa_factor_not_found", "Factor not found"},
		{"DELETE", "/factors/x", nil, as(in.access()), 404, "validation_failed", "factor_id must be an UUID"},
		{"POST", "/token?grant_type=pkce", object{"auth_code": "x"}, nil, 400, "validation_failed", "invalid request: both auth code and code verifier should be non-empty"},
		{"POST", "/token?grant_type=pkce", object{"auth_code": "x", "code_verifier": "y"}, nil, 404, "flow_state_not_found", "invalid flow state, no valid flow state found"},
		{"POST", "/token?grant_type=id_token", object{"provider": "google", "id_token": "x"}, nil, 400, "provider_disabled", `Provider (issuer "https://accounts.google.com") is not enabled`},
		{"POST", "/token?grant_type=id_token", object{"provider": "acme", "id_token": "x"}, nil, 400, "validation_failed", `Custom OIDC provider "acme" not allowed`},
	} {
		o := func(*http.Request) {}
		if c.who != nil {
			o = c.who
		}
		s.do(c.method, c.path, c.body, o).refused(c.status, c.code, c.message)
	}
	s.do("POST", "/invite", object{}).refused(403, "not_admin", "User not allowed")

	r := s.do("POST", "/token?grant_type=id_token", object{"provider": "google"}).ok(400)
	same(t, "OAuth-style error", r.body, object{"error": "invalid request", "error_description": "id_token required"})
	r = s.do("GET", "/callback?state=x", nil).ok(303)
	same(t, "Location", r.header.Get("Location"),
		"http://127.0.0.1:3000?error=invalid_request&error_code=bad_oauth_state&error_description=OAuth+state+parameter+is+invalid")
}

func TestNewReportsAllMistakes(t *testing.T) {
	t.Parallel()
	_, err := auth.New(auth.Config{
		ExternalURL: "localhost", JWTExpiry: 8 * 24 * time.Hour, PasswordRequirements: "odd", RefreshTokenVersion: 3,
		MinPasswordLength: 73, ReuseInterval: -1, RateLimits: auth.RateLimits{Token: -1},
	})
	if !errors.Is(err, sluice.ErrInvalid) {
		t.Fatalf("error is of no kind: %v", err)
	}
	for _, part := range []string{"Pool", "Keys", "Logger", "ExternalURL", "JWTExpiry", "PasswordRequirements", "RefreshTokenVersion", "MinPasswordLength", "duration", "rate limit"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not reported: %v", part, err)
		}
	}
}

// spec: auth-sec:10
func TestLogsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.login("a@example.com", "wrong secret word").ok(400)
	again := s.renew(in.refresh()).ok(200)
	s.do("PUT", "/user", object{"password": "another secret word"}, as(again.access())).ok(200)
	s.clock.pass(time.Hour)
	third := s.renew(again.refresh()).ok(200)
	s.clock.pass(time.Minute)
	s.renew(in.refresh()).ok(400)
	s.Exec("create function public.fail() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$")
	s.Exec("create trigger fail before insert on auth.users for each row execute function public.fail()")
	s.do("POST", "/signup", object{"email": "b@example.com", "password": "yet another word"}).ok(500)
	log := s.log.String()
	if !strings.Contains(log, "a used refresh token came back") || !strings.Contains(log, "request-1") {
		t.Errorf("the log lacks what happened:\n%s", log)
	}
	for _, secret := range []string{
		password, "wrong secret word", "another secret word", "yet another word", in.access(), in.refresh(), again.refresh(), third.refresh(),
		in.refresh()[:5], token.DevSecretKey, token.DevJWTSecret, "$2a$",
	} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q:\n%s", secret, log)
		}
	}
	for _, r := range []*reply{in, again} {
		for name, values := range r.header {
			if strings.Contains(strings.Join(values, " "), in.refresh()[:5]) {
				t.Errorf("header %s holds a token's beginning", name)
			}
		}
	}
}

// spec: auth-sec:50
func TestClientIP(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	proxied := s.serve(func(c *auth.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	for _, c := range []struct {
		server          *auth.Server
		peer, forwarded string
		want            string
	}{
		{s.server, "10.0.0.1:5", "1.2.3.4", "10.0.0.1"},
		{proxied, "192.0.2.1:5", "1.2.3.4", "192.0.2.1"},
		{proxied, "10.0.0.1:5", "1.2.3.4", "1.2.3.4"},
		{proxied, "10.0.0.1:5", "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"},
		{proxied, "10.0.0.1:5", "garbage", "10.0.0.1"},
		{proxied, "10.0.0.1:5", "", "10.0.0.1"},
		{proxied, "[::ffff:10.0.0.1]:5", "2001:db8::1", "2001:db8::1"},
		{proxied, "odd", "1.2.3.4", "0.0.0.0"},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{"X-Forwarded-For": {c.forwarded}}}
		if got := c.server.ClientIP(r).String(); got != c.want {
			t.Errorf("peer %s, forwarded %q: %s, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
}

func TestRateLimits(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) {
		c.EnableAnonymous = true
		c.RateLimits = auth.RateLimits{SignInSignUp: 30, Token: 150, Anonymous: 30}
	})
	from := func(ip string) option { return func(r *http.Request) { r.RemoteAddr = ip + ":1" } }
	for range 30 {
		s.do("POST", "/signup", object{"email": "x"}, from("192.0.2.1")).ok(400)
		s.login("nobody@example.com", "x").ok(400)
		s.do("POST", "/signup", object{}, from("192.0.2.1")).ok(200)
	}
	const code, text = "over_request_rate_limit", "Request rate limit reached"
	s.do("POST", "/signup", object{"email": "x"}, from("192.0.2.1")).refused(429, code, text)
	s.login("nobody@example.com", "x").refused(429, code, text)
	s.do("POST", "/signup", object{}, from("192.0.2.1")).refused(429, code, text)
	s.do("POST", "/signup", object{"email": "x"}, from("192.0.2.2")).ok(400)
	s.clock.pass(11 * time.Second) // one sign-up in ten seconds, one token in two
	s.do("POST", "/signup", object{"email": "x"}, from("192.0.2.1")).ok(400)
	s.do("POST", "/signup", object{"email": "x"}, from("192.0.2.1")).ok(429)
	s.do("POST", "/signup", object{}, from("192.0.2.1")).ok(429)
}

func TestBucketsAreBounded(t *testing.T) {
	t.Parallel()
	allow, size := auth.NewBuckets(1, time.Hour)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	a := netip.MustParseAddr("10.0.0.0")
	for range 25_000 {
		if !allow(a, now) {
			t.Fatal("a new address is refused")
		}
		a = a.Next()
	}
	if n := size(); n > 10_000 {
		t.Errorf("%d buckets are kept", n)
	}
}

// Who has used up his requests is not let in again because many others come.
func TestBucketsForgetTheLeastUsed(t *testing.T) {
	t.Parallel()
	allow, size := auth.NewBuckets(30, 5*time.Minute)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	me, a := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("10.0.0.0")
	for range 30 {
		allow(me, now)
	}
	for i := range 25_000 {
		now = now.Add(time.Microsecond) // a hundredth of a request is earned back meanwhile
		allow(a, now)
		a = a.Next()
		if i%1000 == 0 && allow(me, now) {
			t.Fatalf("let in again behind %d others", i)
		}
	}
	// Those who earned all of theirs back go first.
	now = now.Add(time.Minute)
	late := netip.MustParseAddr("10.1.0.0")
	for range 6_000 {
		allow(late, now)
		late = late.Next()
	}
	for range 6 { // what a minute earns
		allow(me, now)
	}
	if allow(me, now) {
		t.Error("let in again behind those who are allowed everything")
	}
	if n := size(); n > 10_000 {
		t.Errorf("%d buckets are kept", n)
	}
}

// A machine has a /64 of IPv6 for itself, and a site at most a /48: that may do as
// much as 16 addresses.
func TestBucketsOfIPv6(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	count := func(allow func(netip.Addr, time.Time) bool, addr func(i int) string) (n int) {
		for i := range 2000 {
			if allow(netip.MustParseAddr(addr(i)), now) {
				n++
			}
		}
		return n
	}
	for name, c := range map[string]struct {
		addr func(i int) string
		want int
	}{
		"one network":            {func(i int) string { return fmt.Sprintf("2001:db8:1:2::%x", i+1) }, 30},
		"one site":               {func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i+1) }, 480},
		"sites":                  {func(i int) string { return fmt.Sprintf("2001:db8:%x::1", i+1) }, 2000},
		"IPv4 in IPv6":           {func(int) string { return "::ffff:192.0.2.1" }, 30},
		"addresses of IPv4":      {func(i int) string { return fmt.Sprintf("::ffff:192.0.%d.%d", i>>8, i&0xff) }, 2000},
		"one network with zones": {func(i int) string { return fmt.Sprintf("fe80::1%%eth%d", i) }, 30},
	} {
		allow, _ := auth.NewBuckets(30, 5*time.Minute)
		same(t, name, count(allow, c.addr), c.want)
	}
	// What one network of a site is refused does not count against the others.
	allow, _ := auth.NewBuckets(30, 5*time.Minute)
	count(allow, func(int) string { return "2001:db8:1:2::1" })
	same(t, "the rest of the site", count(allow, func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i+3) }), 450)
	now = now.Add(10 * time.Second) // one request is earned, and 16 of the site
	same(t, "later", count(allow, func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i+3) }), 16)
}

func TestDatabaseIsDown(t *testing.T) {
	t.Parallel()
	s := startOn(t, pgtest.Private(t), nil)
	in := s.signUp("a@example.com")
	s.StopServer()
	for _, call := range []string{"GET /user", "POST /logout", "GET /admin/users/" + in.id()} {
		method, path, _ := strings.Cut(call, " ")
		o := as(in.access())
		if strings.HasPrefix(path, "/admin") {
			o = admin
		}
		s.do(method, path, nil, o).refused(503, "unexpected_failure", "The database cannot be reached, please retry after a moment.")
	}
	s.login("a@example.com", password).ok(503)
	s.renew(in.refresh()).ok(503)
	s.StartServer()
	// The clients' own retries find it again.
	for try := 0; s.do("GET", "/user", nil, as(in.access())).status != 200; try++ {
		if try == 20 {
			t.Fatal("the database came back, and nobody noticed")
		}
	}
	s.renew(in.refresh()).ok(200)
}
