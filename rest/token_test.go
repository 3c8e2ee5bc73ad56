package rest_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/token"
)

// behind is REST behind a gateway with other keys.
func (s *stack) behind(cfg token.Config) http.Handler {
	s.t.Helper()
	keys, err := token.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{Logger: s.logger, Keys: keys, REST: s.server})
	if err != nil {
		s.t.Fatal(err)
	}
	return g
}

// asked is the answer to who asks with a bearer token.
func (s *stack) asked(h http.Handler, bearer string) *httptest.ResponseRecorder {
	s.t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, s.request("GET /rpc/whoami", "", "Authorization", "Bearer "+bearer))
	return w
}

// No audience is configured: any that is one passes.
//
// spec: rest:AU-14
func TestAudience(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct {
		aud  any
		fits bool
	}{
		{"authenticated", true},
		{"", true},
		{[]string{"a", "b"}, true},
		{[]string{}, true},
		{nil, true},
		{7, false},
		{true, false},
		{map[string]any{"a": 1}, false},
		{[]any{"a", 1}, false},
		{[]any{"a", nil}, false},
	} {
		w := s.asked(s.gateway, sign(t, jwt.MapClaims{"role": "authenticated", "exp": 4102444800, "aud": c.aud, "nested": map[string]any{"aud": 1}}))
		if c.fits {
			if w.Code != http.StatusOK {
				t.Errorf("%v: %d %s", c.aud, w.Code, w.Body)
			}
			continue
		}
		wantError(t, w, http.StatusUnauthorized, "PGRST303", "The JWT 'aud' claim must be a string or an array of strings")
	}
	if w := s.asked(s.gateway, sign(t, jwt.MapClaims{"role": "authenticated", "exp": 4102444800, "nested": map[string]any{"aud": 1}})); w.Code != http.StatusOK {
		t.Errorf("without: %d %s", w.Code, w.Body)
	}
}

// A binary secret is a JWK of type oct; of several keys the token's kid names one.
//
// spec: rest:AU-21
func TestKeySets(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	binary := []byte("\x00\xff a binary secret of 32 bytes \x01\x02")
	h := s.behind(token.Config{
		Secret: token.DevJWTSecret, SigningKeys: token.DevSigningKeys,
		VerifyKeys: fmt.Appendf(nil, `{"keys":[{"kty":"oct","kid":"one","k":%q},{"kty":"oct","kid":"two","k":%q}]}`,
			base64.RawURLEncoding.EncodeToString(binary), base64.RawURLEncoding.EncodeToString([]byte("another secret, as long as it has to be"))),
	})
	issue := func(key []byte, kid string) string {
		tok := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"role": "authenticated", "exp": 4102444800})
		if kid != "" {
			tok.Header["kid"] = kid
		}
		text, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	own, err := token.New(token.Config{Secret: token.DevJWTSecret, SigningKeys: token.DevSigningKeys})
	if err != nil {
		t.Fatal(err)
	}
	asymmetric, err := own.Sign(jwt.MapClaims{"role": "authenticated", "exp": 4102444800})
	if err != nil {
		t.Fatal(err)
	}
	for name, tok := range map[string]string{
		"oct": issue(binary, "one"), "the text secret": issue([]byte(token.DevJWTSecret), ""), "a kid of no key": issue([]byte(token.DevJWTSecret), "nobody"), "ES256": asymmetric,
	} {
		if w := s.asked(h, tok); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	for name, tok := range map[string]string{"the other's kid": issue(binary, "two"), "no kid": issue(binary, ""), "another secret of the kid": issue([]byte(token.DevJWTSecret), "one")} {
		w := s.asked(h, tok)
		t.Log(name)
		wantError(t, w, http.StatusUnauthorized, "PGRST301", "No suitable key or wrong key type")
	}
}

// A token that was seen before is looked at again: its times by the clock, its
// signature by other keys.
//
// spec: rest:AU-23
func TestTokensAgain(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	now := time.Unix(1_800_000_000, 0)
	h := s.behind(token.Config{Secret: token.DevJWTSecret, Now: func() time.Time { return now }})
	tok := sign(t, jwt.MapClaims{"role": "authenticated", "exp": now.Unix() + 60})
	for range 3 {
		if w := s.asked(h, tok); w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	now = now.Add(89 * time.Second) // 30 s are forgiven
	if w := s.asked(h, tok); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	now = now.Add(time.Second)
	wantError(t, s.asked(h, tok), http.StatusUnauthorized, "PGRST303", "JWT expired")

	now = now.Add(-90 * time.Second)
	other := s.behind(token.Config{Secret: "another secret, as long as it has to be", Now: func() time.Time { return now }})
	wantError(t, s.asked(other, tok), http.StatusUnauthorized, "PGRST301", "No suitable key or wrong key type")
}
