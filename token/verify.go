package token

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-dev/sluice"
)

// maxToken bounds a token in bytes: what fits into a request line with room.
const maxToken = 16 << 10

// Rules are what a service asks of a token beyond its form, its signature and
// the types of its claims. exp is always required.
type Rules struct {
	// Role: the role claim is required. Without this rule a token that has none
	// acts as anon.
	Role bool
	// Leeway is added to the times in the token's favour.
	Leeway time.Duration
	// NotBefore: nbf and iat, where present, must be numbers and not in the
	// future.
	NotBefore bool
}

// The services' own rules, as in the originals.
var (
	RealtimeRules = Rules{Role: true}
	AuthRules     = Rules{}
	RESTRules     = Rules{Leeway: 30 * time.Second, NotBefore: true}
)

// Verify returns the claims of a JWT under RealtimeRules. The error is a
// *sluice.Refusal with the text that a join's reply carries; for an expired
// token errors.Is(err, sluice.ErrTokenExpired).
func (k *Keyring) Verify(tok string) (sluice.Claims, error) {
	return k.VerifyBearer(tok, RealtimeRules)
}

// VerifyBearer is Verify under other rules. A claim that breaks them refuses the
// token with cause sluice.ErrTokenClaims and PostgREST's text.
func (k *Keyring) VerifyBearer(tok string, rules Rules) (sluice.Claims, error) {
	c, err := k.signed(tok)
	if err != nil {
		return sluice.Claims{}, err
	}
	claims := c.claims
	now := k.now()
	switch {
	case c.hasExp && !claims.ExpiresAt.Add(rules.Leeway).After(now):
		return sluice.Claims{}, sluice.Refuse(sluice.CodeInvalidJWTToken).
			WithText("Token has expired %d seconds ago", int64(now.Sub(claims.ExpiresAt)/time.Second)).
			WithCause(sluice.ErrTokenExpired)
	case !c.hasExp, rules.Role && claims.Role == "":
		return sluice.Claims{}, sluice.Refuse(sluice.CodeInvalidJWTToken).
			WithText("Fields `role` and `exp` are required in JWT").
			WithRemedy("Issue tokens with both claims; role names the PostgreSQL role.").
			WithCause(sluice.ErrTokenClaims)
	case rules.NotBefore && c.badNotBefore:
		return sluice.Claims{}, notANumber("nbf")
	case rules.NotBefore && c.notBefore.Add(-rules.Leeway).After(now):
		return sluice.Claims{}, early("JWT not yet valid")
	case rules.NotBefore && c.issuedAt.Add(-rules.Leeway).After(now):
		return sluice.Claims{}, early("JWT issued at future")
	}
	if claims.Role == "" {
		claims.Role = "anon"
	}
	return claims, nil
}

func early(text string) error {
	return sluice.Refuse(sluice.CodeInvalidJWTToken).WithText("%s", text).
		WithRemedy("Check the clocks of this machine and of the one that issued the token.").
		WithCause(sluice.ErrTokenClaims)
}

func notANumber(claim string) error {
	return sluice.Refuse(sluice.CodeInvalidJWTToken).
		WithText("The JWT '%s' claim must be a number", claim).
		WithRemedy("Issue tokens whose times are numbers of seconds since 1970.").
		WithCause(sluice.ErrTokenClaims)
}

// signed returns the claims of a token whose form, signature and types are
// right, from the cache if it was seen before. Times are the caller's.
func (k *Keyring) signed(tok string) (cached, error) {
	tok = clean(tok)
	if len(tok) > maxToken {
		return cached{}, malformed("longer than %d bytes", maxToken)
	}
	sum := sha256.Sum256([]byte(tok))
	k.mu.Lock()
	c, hit := k.cache[sum]
	k.mu.Unlock()
	if hit {
		return c, nil
	}
	c, err := k.parse(tok)
	if err != nil {
		return cached{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.cache) >= maxCached {
		n := 0
		for key := range k.cache { // Go's order of a map is arbitrary
			delete(k.cache, key)
			if n++; n >= maxCached/2 {
				break
			}
		}
	}
	k.cache[sum] = c
	return c, nil
}

// clean undoes what copying into URLs and files does to a token: percent
// escapes and white space.
func clean(tok string) string {
	if strings.ContainsRune(tok, '%') {
		if s, err := url.PathUnescape(tok); err == nil {
			tok = s
		}
	}
	if strings.IndexFunc(tok, unicode.IsSpace) < 0 {
		return tok
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, tok)
}

func malformed(format string, args ...any) error {
	return sluice.Refuse(sluice.CodeMalformedJWT).WithCause(fmt.Errorf(format+": %w", append(args, sluice.ErrTokenForm)...))
}

type header struct {
	Alg string  `json:"alg"`
	Kid *string `json:"kid"`
}

// parse checks form and signature and reads the claims. Times are left to the
// caller.
func (k *Keyring) parse(tok string) (cached, error) {
	parts := strings.Split(tok, ".")
	if len(parts) != 3 {
		return cached{}, malformed("expected 3 parts in JWT; got %d", len(parts))
	}
	var h header
	if err := decodeObject(parts[0], &h, nil); err != nil {
		return cached{}, malformed("header: %w", err)
	}
	var claims map[string]json.RawMessage
	var text json.RawMessage
	if err := decodeObject(parts[1], &claims, &text); err != nil {
		return cached{}, malformed("claims: %w", err)
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return cached{}, malformed("signature: %w", err)
	}
	if h.Alg == "Ed25519" { // RFC 9864's name for the only curve that EdDSA has here
		h.Alg = "EdDSA"
	}
	keys, err := k.keysFor(h)
	if err != nil {
		return cached{}, err
	}
	method := jwt.GetSigningMethod(h.Alg)
	signed := tok[:len(parts[0])+1+len(parts[1])]
	if !slices.ContainsFunc(keys, func(key any) bool { return method.Verify(signed, sig, key) == nil }) {
		return cached{}, sluice.Refuse(sluice.CodeJwtSignatureError).WithCause(sluice.ErrTokenSignature)
	}
	return readClaims(claims, text)
}

// decodeObject reads a base64url segment that holds a JSON object.
func decodeObject(segment string, into any, text *json.RawMessage) error {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(segment, "="))
	if err != nil {
		return err
	}
	if i := strings.IndexFunc(string(raw), func(r rune) bool { return !unicode.IsSpace(r) }); i < 0 || raw[i] != '{' {
		return fmt.Errorf("not a JSON object")
	}
	if text != nil {
		*text = raw
	}
	return json.Unmarshal(raw, into)
}

// keysFor returns the keys that may have signed a token. The algorithm is
// decided by the key: a public key's kid with alg HS256 finds none.
func (k *Keyring) keysFor(h header) ([]any, error) {
	switch h.Alg {
	case "HS256", "HS384", "HS512":
		if h.Kid != nil {
			if v, ok := k.public[*h.Kid]; ok {
				if slices.Contains(v.algs, h.Alg) {
					return []any{v.key}, nil
				}
				return nil, noSigner(h.Kid)
			}
		}
		out := make([]any, len(k.secrets))
		for i, s := range k.secrets {
			out[i] = s
		}
		return out, nil
	case "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA":
		if h.Kid == nil {
			return nil, noSigner(nil)
		}
		if v, ok := k.public[*h.Kid]; ok && slices.Contains(v.algs, h.Alg) {
			return []any{v.key}, nil
		}
		return nil, noSigner(h.Kid)
	}
	return nil, noSigner(nil)
}

func noSigner(kid *string) error {
	r := sluice.Refuse(sluice.CodeJwtSignerError).WithCause(sluice.ErrTokenKey)
	if kid == nil {
		return r
	}
	name := *kid
	if len(name) > 64 {
		name = name[:64] + "…"
	}
	return r.WithText("Failed to generate JWT signer for key ID (kid) %q, check your JWT secret or JWKS configuration", name)
}

// readClaims picks the claims that Sluice itself needs.
func readClaims(m map[string]json.RawMessage, text json.RawMessage) (cached, error) {
	c := cached{claims: sluice.Claims{JSON: text}}
	for _, t := range []struct {
		name string
		into *time.Time
	}{{"exp", &c.claims.ExpiresAt}, {"iat", &c.issuedAt}, {"nbf", &c.notBefore}} {
		raw, ok := m[t.name]
		if !ok {
			continue
		}
		at, ok := seconds(raw)
		switch {
		case ok:
			*t.into = at
			c.hasExp = c.hasExp || t.name == "exp"
		case t.name == "nbf":
			c.badNotBefore = true // Realtime does not look at it
		default:
			return c, notANumber(t.name)
		}
	}
	for name, into := range map[string]*string{"role": &c.claims.Role, "sub": &c.claims.Subject, "session_id": &c.claims.SessionID} {
		raw, ok := m[name]
		if !ok || string(raw) == "null" {
			continue
		}
		if err := json.Unmarshal(raw, into); err != nil {
			if name != "role" {
				continue // of another issuer's type; SQL still sees it in the claims
			}
			return c, sluice.Refuse(sluice.CodeInvalidJWTToken).
				WithText("The JWT 'role' claim must be a string").WithCause(sluice.ErrTokenClaims)
		}
	}
	return c, nil
}

// seconds reads a number of seconds since 1970, cut to whole ones.
func seconds(raw json.RawMessage) (time.Time, bool) {
	var f float64
	if string(raw) == "null" || json.Unmarshal(raw, &f) != nil {
		return time.Time{}, false
	}
	const maxSeconds = 1 << 33 // the year 2242; UnixNano holds it
	return time.Unix(int64(min(max(f, 0), maxSeconds)), 0), true
}
