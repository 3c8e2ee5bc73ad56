package token_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/token"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func ring(t testing.TB, change func(*token.Config)) *token.Keyring {
	t.Helper()
	cfg := token.Config{
		Secret: token.DevJWTSecret, SigningKeys: token.DevSigningKeys,
		PublishableKeys: []sluice.Secret{token.DevPublishableKey, "sb_publishable_aaaaaaaaaaaaaaaaaaaaaa_bbbbbbbb"},
		SecretKeys:      []sluice.Secret{token.DevSecretKey},
		Now:             func() time.Time { return now },
	}
	if change != nil {
		change(&cfg)
	}
	k, err := token.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

type claims = map[string]any

func sign(t testing.TB, method jwt.SigningMethod, key any, kid string, c claims) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, jwt.MapClaims(c))
	if kid != "" {
		tok.Header["kid"] = kid
	}
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func good(more ...any) claims {
	c := claims{"role": "authenticated", "exp": now.Add(time.Hour).Unix(), "sub": "u1"}
	for i := 0; i < len(more); i += 2 {
		if more[i+1] == nil {
			delete(c, more[i].(string))
			continue
		}
		c[more[i].(string)] = more[i+1]
	}
	return c
}

func wantRefusal(t *testing.T, err error, code sluice.Code, text string) {
	t.Helper()
	var r *sluice.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("error %v is no refusal", err)
	}
	if r.Code != code || !strings.Contains(r.Text, text) || r.Remedy == "" {
		t.Errorf("refusal %s %q (remedy %q), want %s %q", r.Code, r.Text, r.Remedy, code, text)
	}
}

var secret = []byte(token.DevJWTSecret)

// spec: realtime:14 realtime:19 realtime:22
func TestVerifyHMAC(t *testing.T) {
	t.Parallel()
	k := ring(t, nil)
	for _, m := range []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
		c, err := k.Verify(sign(t, m, secret, "", good("session_id", "s1")))
		if err != nil || c.Role != "authenticated" || c.Subject != "u1" || c.SessionID != "s1" || !c.ExpiresAt.Equal(now.Add(time.Hour)) {
			t.Errorf("%s: %+v, %v", m.Alg(), c, err)
		}
		if !json.Valid(c.JSON) {
			t.Errorf("%s: JSON %q", m.Alg(), c.JSON)
		}
	}
	noTyp := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(good()))
	delete(noTyp.Header, "typ")
	s, _ := noTyp.SignedString(secret)
	if _, err := k.Verify(s); err != nil {
		t.Errorf("without typ: %v", err)
	}
}

// spec: realtime:3 realtime:5 realtime:6 realtime:20 realtime:21
func TestVerifyRefusals(t *testing.T) {
	t.Parallel()
	k := ring(t, nil)
	hs := func(c claims) string { return sign(t, jwt.SigningMethodHS256, secret, "", c) }
	flipped := hs(good())
	flipped = flipped[:len(flipped)-5] + "AAAAA"
	for name, tt := range map[string]struct {
		token string
		code  sluice.Code
		text  string
		cause error
	}{
		"empty":        {"", sluice.CodeMalformedJWT, "The token provided is not a valid JWT", sluice.ErrTokenForm},
		"word":         {"garbage", sluice.CodeMalformedJWT, "The token provided is not a valid JWT", sluice.ErrTokenForm},
		"two parts":    {"a.b", sluice.CodeMalformedJWT, "The token provided is not a valid JWT", sluice.ErrTokenForm},
		"not base64":   {"!.!.!", sluice.CodeMalformedJWT, "The token provided is not a valid JWT", sluice.ErrTokenForm},
		"array":        {b64(`{"alg":"HS256"}`) + "." + b64(`[1]`) + ".", sluice.CodeMalformedJWT, "", sluice.ErrTokenForm},
		"long":         {strings.Repeat("a", 20000), sluice.CodeMalformedJWT, "", sluice.ErrTokenForm},
		"signature":    {flipped, sluice.CodeJwtSignatureError, "Failed to validate JWT signature", sluice.ErrTokenSignature},
		"other secret": {sign(t, jwt.SigningMethodHS256, []byte("another secret of good length"), "", good()), sluice.CodeJwtSignatureError, "", sluice.ErrTokenSignature},
		"none":         {b64(`{"alg":"none"}`) + "." + b64(`{"role":"service_role","exp":9999999999}`) + ".", sluice.CodeJwtSignerError, "Failed to generate JWT signer, check", sluice.ErrTokenKey},
		"NONE":         {b64(`{"alg":"NoNe"}`) + "." + b64(`{"role":"service_role","exp":9999999999}`) + ".", sluice.CodeJwtSignerError, "", sluice.ErrTokenKey},
		"expired":      {hs(good("exp", now.Add(-7*time.Second).Unix())), sluice.CodeInvalidJWTToken, "Token has expired 7 seconds ago", sluice.ErrTokenExpired},
		"expires now":  {hs(good("exp", now.Unix())), sluice.CodeInvalidJWTToken, "Token has expired 0 seconds ago", sluice.ErrTokenExpired},
		"no role":      {hs(good("role", nil)), sluice.CodeInvalidJWTToken, "Fields `role` and `exp` are required in JWT", sluice.ErrTokenClaims},
		"no exp":       {hs(good("exp", nil)), sluice.CodeInvalidJWTToken, "Fields `role` and `exp` are required in JWT", sluice.ErrTokenClaims},
		"exp string":   {hs(good("exp", "9999999999")), sluice.CodeInvalidJWTToken, "'exp' claim must be a number", sluice.ErrTokenClaims},
		"iat string":   {hs(good("iat", "1")), sluice.CodeInvalidJWTToken, "'iat' claim must be a number", sluice.ErrTokenClaims},
		"role number":  {hs(good("role", 1)), sluice.CodeInvalidJWTToken, "'role' claim must be a string", sluice.ErrTokenClaims},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // the second time from the cache, if it got there
				_, err := k.Verify(tt.token)
				wantRefusal(t, err, tt.code, tt.text)
				if !errors.Is(err, tt.cause) {
					t.Errorf("cause of %v is not %v", err, tt.cause)
				}
			}
		})
	}
	if c, err := k.Verify(hs(good("exp", float64(now.Unix())+60.7, "iat", 1.5))); err != nil || c.ExpiresAt.Unix() != now.Unix()+60 {
		t.Errorf("fractional times: %v, %v", c.ExpiresAt, err)
	}
	if c, err := k.VerifyBearer(hs(good("role", nil)), token.AuthRules); err != nil || c.Role != "anon" {
		t.Errorf("VerifyBearer without role: %+v, %v", c, err)
	}
}

func TestVerifyBearerRules(t *testing.T) {
	t.Parallel()
	k := ring(t, nil)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for name, tt := range map[string]struct {
		rules token.Rules
		c     claims
		text  string // empty: accepted
	}{
		"REST takes 29 s behind exp":   {token.RESTRules, good("exp", at(-29*time.Second)), ""},
		"REST refuses 30 s behind exp": {token.RESTRules, good("exp", at(-30*time.Second)), "Token has expired 30 seconds ago"},
		"Auth refuses at exp":          {token.AuthRules, good("exp", at(0)), "Token has expired 0 seconds ago"},
		"nbf within the leeway":        {token.RESTRules, good("nbf", at(30*time.Second)), ""},
		"nbf beyond the leeway":        {token.RESTRules, good("nbf", at(31*time.Second)), "JWT not yet valid"},
		"nbf a word":                   {token.RESTRules, good("nbf", "soon"), "The JWT 'nbf' claim must be a number"},
		"nbf of Realtime":              {token.RealtimeRules, good("nbf", "soon"), ""},
		"iat beyond the leeway":        {token.RESTRules, good("iat", at(31*time.Second)), "JWT issued at future"},
		"iat of Realtime":              {token.RealtimeRules, good("iat", at(time.Hour)), ""},
		"no exp":                       {token.RESTRules, good("exp", nil), "`exp`"},
		"role a number":                {token.RESTRules, good("role", 1), "'role' claim must be a string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok := sign(t, jwt.SigningMethodHS256, secret, "", tt.c)
			for range 2 { // from the cache the second time
				_, err := k.VerifyBearer(tok, tt.rules)
				if tt.text != "" {
					wantRefusal(t, err, sluice.CodeInvalidJWTToken, tt.text)
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// spec: realtime:13
func TestVerifyCleans(t *testing.T) {
	t.Parallel()
	k := ring(t, nil)
	tok := sign(t, jwt.SigningMethodHS256, secret, "", good())
	for _, dirty := range []string{" " + tok + "\n", tok[:20] + "\r\n " + tok[20:], strings.ReplaceAll(tok, ".", "%2E"), "%20" + tok} {
		if _, err := k.Verify(dirty); err != nil {
			t.Errorf("%q: %v", dirty, err)
		}
	}
}

func set(t testing.TB, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// spec: realtime:10 realtime:15 realtime:16 realtime:17 realtime:18 auth-sec:1 auth-sec:3
func TestVerifyByKid(t *testing.T) {
	t.Parallel()
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	ecKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	edPub, edKey, _ := ed25519.GenerateKey(rand.Reader)
	oct := []byte("an oct key of thirty-two bytes!!")
	k := ring(t, func(c *token.Config) {
		c.VerifyKeys = set(t,
			jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "r"}, jose.JSONWebKey{Key: ecKey.Public(), KeyID: "e"},
			jose.JSONWebKey{Key: edPub, KeyID: "d"}, jose.JSONWebKey{Key: oct, KeyID: "o"})
	})
	for name, tok := range map[string]string{
		"RS256":             sign(t, jwt.SigningMethodRS256, rsaKey, "r", good()),
		"RS512":             sign(t, jwt.SigningMethodRS512, rsaKey, "r", good()),
		"ES256":             sign(t, jwt.SigningMethodES256, ecKey, "e", good()),
		"Ed25519":           signAs(t, edKey, `{"alg":"Ed25519","kid":"d"}`, good()),
		"EdDSA":             sign(t, jwt.SigningMethodEdDSA, edKey, "d", good()),
		"oct":               sign(t, jwt.SigningMethodHS256, oct, "o", good()),
		"HS, unknown kid":   sign(t, jwt.SigningMethodHS256, secret, "nobody", good()),
		"the signing key's": must(k.Sign(good())),
	} {
		if _, err := k.Verify(tok); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	pub, _ := json.Marshal(rsaKey.PublicKey.N.Bytes())
	for name, tt := range map[string]struct {
		tok  string
		code sluice.Code
		text string
	}{
		"unknown kid":              {sign(t, jwt.SigningMethodES256, ecKey, "nobody", good()), sluice.CodeJwtSignerError, `key ID (kid) "nobody", check`},
		"no kid":                   {sign(t, jwt.SigningMethodRS256, rsaKey, "", good()), sluice.CodeJwtSignerError, "JWT signer, check"},
		"PS256":                    {sign(t, jwt.SigningMethodPS256, rsaKey, "r", good()), sluice.CodeJwtSignerError, "JWT signer, check"},
		"other key of the kid":     {sign(t, jwt.SigningMethodHS256, secret, "o", good()), sluice.CodeJwtSignatureError, ""},
		"HS256 with a public kid":  {sign(t, jwt.SigningMethodHS256, pub, "r", good()), sluice.CodeJwtSignerError, `"r"`},
		"HS256 secret, public kid": {sign(t, jwt.SigningMethodHS256, secret, "e", good()), sluice.CodeJwtSignerError, `"e"`},
		"none with a public kid":   {b64(`{"alg":"none","kid":"r"}`) + "." + b64(`{"role":"x","exp":9999999999}`) + ".", sluice.CodeJwtSignerError, "JWT signer, check"},
		"RS256 with an EC kid":     {sign(t, jwt.SigningMethodRS256, rsaKey, "e", good()), sluice.CodeJwtSignerError, `"e"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := k.Verify(tt.tok)
			wantRefusal(t, err, tt.code, tt.text)
		})
	}
}

// signAs signs with Ed25519 under a header of the test's own.
func signAs(t testing.TB, key ed25519.PrivateKey, header string, c claims) string {
	t.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	signed := b64(header) + "." + b64(string(body))
	return signed + "." + b64(string(ed25519.Sign(key, []byte(signed))))
}

func must(s string, err error) string {
	if err != nil {
		panic(err)
	}
	return s
}

func TestExpiryIsCheckedOnCacheHits(t *testing.T) {
	t.Parallel()
	clock := now
	k := ring(t, func(c *token.Config) { c.Now = func() time.Time { return clock } })
	tok := sign(t, jwt.SigningMethodHS256, secret, "", good())
	if _, err := k.Verify(tok); err != nil {
		t.Fatal(err)
	}
	clock = now.Add(2 * time.Hour)
	_, err := k.Verify(tok)
	wantRefusal(t, err, sluice.CodeInvalidJWTToken, "Token has expired 3600 seconds ago")
}

func TestSignAndJWKS(t *testing.T) {
	t.Parallel()
	k := ring(t, nil)
	var jwks struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(k.JWKS(), &jwks); err != nil || len(jwks.Keys) != 1 {
		t.Fatalf("JWKS %s: %v", k.JWKS(), err)
	}
	key := jwks.Keys[0]
	if key["d"] != nil || key["alg"] != "ES256" || key["use"] != "sig" || fmt.Sprint(key["key_ops"]) != "[verify]" || key["x"] == nil {
		t.Errorf("JWKS %s", k.JWKS())
	}
	tok := must(k.Sign(good()))
	if h, _ := base64.RawURLEncoding.DecodeString(strings.Split(tok, ".")[0]); !strings.Contains(string(h), key["kid"].(string)) {
		t.Errorf("header %s", h)
	}
	plain := ring(t, func(c *token.Config) { c.SigningKeys = "" })
	if string(plain.JWKS()) != `{"keys":[]}` {
		t.Errorf("JWKS of a secret alone: %s", plain.JWKS())
	}
	if _, err := plain.Verify(must(plain.Sign(good()))); err != nil {
		t.Error(err)
	}
}

// Whatever kinds of keys are configured, clients see public halves alone.
//
// spec: auth-sec:8
func TestJWKSIsPublic(t *testing.T) {
	t.Parallel()
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	ecKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k := ring(t, func(c *token.Config) {
		c.SigningKeys = sluice.Secret(set(t,
			jose.JSONWebKey{Key: rsaKey, KeyID: "r"}, jose.JSONWebKey{Key: edKey, KeyID: "d"}, jose.JSONWebKey{Key: ecKey, KeyID: "e"},
			jose.JSONWebKey{Key: []byte("an oct key of thirty-two bytes!!"), KeyID: "o"}))
		c.VerifyKeys = set(t, jose.JSONWebKey{Key: []byte("another oct key of thirty bytes!"), KeyID: "o2"})
	})
	var jwks struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(k.JWKS(), &jwks); err != nil || len(jwks.Keys) != 3 {
		t.Fatalf("JWKS %s: %v", k.JWKS(), err)
	}
	for _, key := range jwks.Keys {
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k", "oth"} {
			if key[private] != nil {
				t.Errorf("key %v shows %s", key["kid"], private)
			}
		}
		if key["kty"] == "oct" || key["use"] != "sig" || fmt.Sprint(key["key_ops"]) != "[verify]" {
			t.Errorf("key %v", key)
		}
	}
}

// spec: auth:56
func TestSigningKeyRotation(t *testing.T) {
	t.Parallel()
	old, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	var dev []map[string]any
	if err := json.Unmarshal([]byte(token.DevSigningKeys), &dev); err != nil {
		t.Fatal(err)
	}
	oldText, _ := jose.JSONWebKey{Key: old, KeyID: "old"}.MarshalJSON()
	var oldJWK map[string]any
	_ = json.Unmarshal(oldText, &oldJWK)
	oldJWK["key_ops"] = []string{"verify"}
	both, _ := json.Marshal([]any{oldJWK, dev[0]})
	k := ring(t, func(c *token.Config) { c.SigningKeys = sluice.Secret(both) })
	if _, err := k.Verify(sign(t, jwt.SigningMethodES256, old, "old", good())); err != nil {
		t.Errorf("old key: %v", err)
	}
	if _, err := ring(t, nil).Verify(sign(t, jwt.SigningMethodES256, old, "old", good())); err == nil {
		t.Error("a key that was removed still verifies")
	}
	h, _ := base64.RawURLEncoding.DecodeString(strings.Split(must(k.Sign(good())), ".")[0])
	if strings.Contains(string(h), `"old"`) {
		t.Errorf("signed with the key that only verifies: %s", h)
	}
}

// While the secret is changed, API keys and users' tokens of both secrets work; each
// step of the change takes away what it should, and no more.
//
// spec: auth-sec:7
func TestSecretRotation(t *testing.T) {
	t.Parallel()
	const next = sluice.Secret("the next secret of this project, longer than 32 bytes")
	oldKey, newKey := token.LegacyKey(sluice.Secret(secret), "anon"), token.LegacyKey(next, "anon")
	oldToken, newToken := sign(t, jwt.SigningMethodHS256, secret, "", good()), sign(t, jwt.SigningMethodHS256, []byte(next), "", good())
	for name, tt := range map[string]struct {
		ring     *token.Keyring
		old, new bool
	}{
		"before":  {ring(t, nil), true, false},
		"during":  {ring(t, func(c *token.Config) { c.Secret, c.OldSecrets = next, []sluice.Secret{c.Secret} }), true, true},
		"after":   {ring(t, func(c *token.Config) { c.Secret = next }), false, true},
		"undoing": {ring(t, func(c *token.Config) { c.OldSecrets = []sluice.Secret{next} }), true, true},
	} {
		for what, c := range map[string]struct {
			err  error
			want bool
		}{
			"old token": {second(tt.ring.Verify(oldToken)), tt.old}, "new token": {second(tt.ring.Verify(newToken)), tt.new},
			"old key": {second(tt.ring.ResolveKey(oldKey)), tt.old}, "new key": {second(tt.ring.ResolveKey(newKey)), tt.new},
		} {
			if (c.err == nil) != c.want {
				t.Errorf("%s: %s: %v", name, what, c.err)
			}
		}
		issued, err := tt.ring.Sign(good())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tt.ring.Verify(issued); err != nil {
			t.Errorf("%s: its own token: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// spec: gateway:4
func TestResolveKey(t *testing.T) {
	t.Parallel()
	k := ring(t, nil)
	anon := token.LegacyKey(token.DevJWTSecret, "anon")
	for key, want := range map[string]struct {
		kind sluice.KeyKind
		role string
	}{
		token.DevPublishableKey:                          {sluice.KeyPublishable, "anon"},
		"sb_publishable_aaaaaaaaaaaaaaaaaaaaaa_bbbbbbbb": {sluice.KeyPublishable, "anon"},
		token.DevSecretKey:                               {sluice.KeySecret, "service_role"},
		anon:                                             {sluice.KeyJWT, "anon"},
		token.LegacyKey(token.DevJWTSecret, "service_role"):     {sluice.KeyJWT, "service_role"},
		" " + token.DevPublishableKey + "\n":                    {sluice.KeyPublishable, "anon"},
		strings.ReplaceAll(token.DevPublishableKey, "_", "%5F"): {sluice.KeyPublishable, "anon"},
	} {
		got, err := k.ResolveKey(key)
		if err != nil || got.Kind != want.kind || got.Claims.Role != want.role {
			t.Errorf("%q: %+v, %v", key, got, err)
		}
	}
	for name, tt := range map[string]struct {
		key  string
		code sluice.Code
		text string
	}{
		"none":            {"", sluice.CodeMissingAPIKey, "API key is missing"},
		"unknown":         {"sb_publishable_BCJWlzQHlZjBrEguHvfOxg_3BJgxAaH", sluice.CodeInvalidAPIKey, "sb_publishable_BCJW…"},
		"unknown secret":  {"sb_secret_X7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz", sluice.CodeInvalidAPIKey, "sb_secret_…"},
		"temp":            {"sb_temp_x", sluice.CodeInvalidAPIKey, "neither"},
		"other project":   {token.LegacyKey("a secret of some other project", "anon"), sluice.CodeJwtSignatureError, ""},
		"s3":              {"625729a08b95bf1b7ff351a663f3a23c", sluice.CodeNotAnAPIKey, "S3 access key"},
		"database":        {"postgresql://a:b@c/d", sluice.CodeNotAnAPIKey, "database URL"},
		"jwt secret":      {token.DevJWTSecret, sluice.CodeNotAnAPIKey, "is the project's JWT secret"},
		"word secret":     {"some-other-secret", sluice.CodeNotAnAPIKey, "looks like the JWT secret"},
		"s3 secret":       {"850181e4652dd023b7a98c58ae0d2d34bd487ee0cc3254aed6eda37307425907", sluice.CodeNotAnAPIKey, "S3 secret key"},
		"undefined":       {"undefined", sluice.CodeNotAnAPIKey, "not set"},
		"quoted":          {`"` + token.DevPublishableKey + `"`, sluice.CodeNotAnAPIKey, "quotes"},
		"bearer":          {"Bearer " + anon, sluice.CodeNotAnAPIKey, "Bearer"},
		"password":        {"hunter2", sluice.CodeNotAnAPIKey, "not an API key"},
		"expired":         {sign(t, jwt.SigningMethodHS256, secret, "", good("exp", 1)), sluice.CodeInvalidJWTToken, "expired"},
		"prefix of a key": {token.DevPublishableKey[:30], sluice.CodeInvalidAPIKey, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := k.ResolveKey(tt.key)
			wantRefusal(t, err, tt.code, tt.text)
			if tt.key != "" && len(tt.key) > 20 && strings.Contains(err.Error(), tt.key) {
				t.Errorf("the refusal shows the key: %v", err)
			}
		})
	}
}

// The CLI prints these for its default secret.
func TestLegacyKeyBytes(t *testing.T) {
	t.Parallel()
	const anon = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJzdXBhYmFzZS1kZW1vIiwicm9sZSI6ImFub24iLCJleHAiOjE5ODM4MTI5OTZ9.CRXP1A7WOeoJeXxjNni43kdQwgnWNReilDMblYTn_I0"
	const service = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJzdXBhYmFzZS1kZW1vIiwicm9sZSI6InNlcnZpY2Vfcm9sZSIsImV4cCI6MTk4MzgxMjk5Nn0.EGIM96RAZx35lJzdJsyH-qQwv8Hdp7fsn3W0YpN81IU"
	if got := token.LegacyKey(token.DevJWTSecret, "anon"); got != anon {
		t.Errorf("anon: %s", got)
	}
	if got := token.LegacyKey(token.DevJWTSecret, "service_role"); got != service {
		t.Errorf("service_role: %s", got)
	}
}

func TestNewReportsAllMistakes(t *testing.T) {
	t.Parallel()
	_, err := token.New(token.Config{
		Secret: "short", PublishableKeys: []sluice.Secret{"nope"}, SigningKeys: `[{"kty":"oct","k":"AAAA"}, {"kty":"EC"}]`,
	})
	for _, want := range []string{"JWT secret 1 has 5 characters", "publishable key does not start", "JWK 1 has no kid", "JWK 2 cannot be read"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if ring(t, nil).UsesDevDefaults() == false {
		t.Error("the defaults are not recognised")
	}
}

func FuzzVerify(f *testing.F) {
	k := ring(f, nil)
	f.Add(sign(f, jwt.SigningMethodHS256, secret, "", good()))
	f.Add(token.DevPublishableKey)
	f.Add(b64(`{"alg":"none"}`) + "." + b64(`{"role":"x","exp":1e300}`) + ".")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := k.Verify(s); err == nil && (c.Role == "" || !c.ExpiresAt.After(now)) {
			t.Errorf("accepted %q as %+v", s, c)
		}
		if key, err := k.ResolveKey(s); err == nil && key.Claims.Role == "" {
			t.Errorf("resolved %q to nobody", s)
		}
	})
}

// BenchmarkVerify verifies a token that was seen before, as every request of a session
// but the first brings it, and one that was not.
func BenchmarkVerify(b *testing.B) {
	k := ring(b, nil)
	es, err := k.Sign(good())
	if err != nil {
		b.Fatal(err)
	}
	for name, tok := range map[string]string{"ES256": es, "HS256": sign(b, jwt.SigningMethodHS256, secret, "", good())} {
		b.Run(name+"/seen", func(b *testing.B) {
			for b.Loop() {
				if _, err := k.Verify(tok); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/new", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				fresh := ring(b, nil)
				b.StartTimer()
				if _, err := fresh.Verify(tok); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
