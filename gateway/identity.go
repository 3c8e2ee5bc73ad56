package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/token"
)

// anonymous is who a request without a key acts as.
var anonymous = sluice.Claims{Role: "anon", JSON: json.RawMessage(`{"role":"anon"}`)}

// keyOther is the kind of a value that has the form of no API key.
const keyOther sluice.KeyKind = "other"

// identify resolves the API key and the bearer token of a request, the same way
// on every route. A key is looked for in header apikey, query apikey, then
// Authorization: Bearer sb_…; x-api-key from outside counts for nothing, and on
// a socket neither does a user's token. A refusal is about the key and leaves
// nobody in the identity; a bad bearer token is left to the service, which
// answers it in its own format. shown is the key, redacted.
func (s *Server) identify(r *http.Request, rt route, rest string) (id sluice.Identity, shown string, _ *sluice.Refusal) {
	id = sluice.Identity{Key: sluice.KeyNone, RequestID: r.Header.Get("X-Request-Id")}
	bearer, hasBearer := bearerOf(r.Header)
	socket := rt.isSocket(rest)
	open := openPath(rt, rest)

	key, place, refusal := findKey(r, bearer)
	switch {
	case refusal != nil:
		id.KeyPlace = place
	case key != "":
		id.KeyPlace, shown = place, sluice.RedactKey(strings.TrimSpace(key))
		found, err := s.cfg.Keys.ResolveKey(key)
		if err == nil {
			id.Key, id.KeyClaims, id.Claims = found.Kind, found.Claims, found.Claims
			break
		}
		id.Key, refusal = kindOf(key), keyRefusal(err, place)
	case socket, s.cfg.Strict && !open && r.Method != http.MethodOptions:
		refusal = missing(r, socket)
	}
	if refusal != nil && !open {
		if s.cfg.Strict && !socket {
			refusal = asStrict(refusal)
		}
		return id, shown, refusal
	}
	if id.Claims.IsZero() {
		id.Claims = anonymous
	}
	if socket || !hasBearer || token.IsOpaque(bearer) {
		return id, shown, nil
	}
	id.Bearer = sluice.Secret(bearer)
	claims, err := s.verifyBearer(bearer, rt.rules)
	if err != nil {
		id.BearerErr = err
	} else {
		id.Claims = claims
	}
	return id, shown, nil
}

func (s *Server) verifyBearer(bearer string, rules token.Rules) (sluice.Claims, *sluice.Refusal) {
	if bearer == "" {
		return sluice.Claims{}, sluice.Refuse(sluice.CodeMalformedJWT).
			WithText("Empty JWT is sent in Authorization header").WithCause(sluice.ErrTokenForm)
	}
	claims, err := s.cfg.Keys.VerifyBearer(bearer, rules)
	if err == nil {
		return claims, nil
	}
	var refused *sluice.Refusal
	if !errors.As(err, &refused) {
		refused = sluice.Refuse(sluice.CodeInternal).WithCause(err)
	}
	return sluice.Claims{}, refused
}

// bearerOf returns the token of an Authorization header with scheme Bearer.
func bearerOf(h http.Header) (tok string, ok bool) {
	scheme, tok, _ := strings.Cut(strings.TrimSpace(h.Get("Authorization")), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "", false
	}
	return strings.TrimSpace(tok), true
}

// findKey returns the first API key and where it stood. Two different ones in
// one place are refused: which of them counts would be chance.
func findKey(r *http.Request, bearer string) (key, place string, refusal *sluice.Refusal) {
	key, twice := single(r.Header.Values("Apikey"))
	place = "header"
	if key == "" && !twice && r.URL.RawQuery != "" {
		key, twice = single(r.URL.Query()["apikey"])
		place = "query"
	}
	switch {
	case twice:
		return "", place, sluice.Refuse(sluice.CodeDuplicateAPIKey).WithText("The request carries two different API keys in its %s", place)
	case key != "":
		return key, place, nil
	case token.IsOpaque(bearer):
		return bearer, "bearer", nil
	}
	return "", "", nil
}

// single returns the one value of a header or parameter that may stand there
// several times; proxies join repeated headers with commas, which no key holds.
func single(values []string) (value string, twice bool) {
	for _, list := range values {
		for v := range strings.SplitSeq(list, ",") {
			switch v = strings.TrimSpace(v); {
			case v == "" || v == value:
			case value != "":
				return "", true
			default:
				value = v
			}
		}
	}
	return value, false
}

// kindOf tells the kind of a refused key by its form.
func kindOf(key string) sluice.KeyKind {
	switch key = strings.TrimSpace(key); {
	case strings.HasPrefix(key, "sb_publishable_"):
		return sluice.KeyPublishable
	case strings.HasPrefix(key, "sb_secret_"):
		return sluice.KeySecret
	case looksLikeKey(key):
		return sluice.KeyJWT
	}
	return keyOther
}

// misplaced are query parameters and headers where keys are put by mistake.
var misplaced = []string{"x-api-key", "key", "api_key", "api-key", "token", "access_token", "anon_key", "publishable_key"}

// missing refuses a request without a key; when something that looks like one
// stands elsewhere, it says where.
func missing(r *http.Request, socket bool) *sluice.Refusal {
	refusal := sluice.Refuse(sluice.CodeMissingAPIKey)
	q := r.URL.Query()
	for _, name := range misplaced {
		if looksLikeKey(q.Get(name)) {
			return refusal.WithRemedy("The query parameter %s holds what looks like a key; its name must be apikey.", name)
		}
		if looksLikeKey(r.Header.Get(name)) {
			return refusal.WithRemedy("The header %s holds what looks like a key; its name must be apikey.", name)
		}
	}
	if bearer, _ := bearerOf(r.Header); socket {
		switch {
		case looksLikeKey(bearer):
			return refusal.WithRemedy("The Authorization header holds a token, which a socket does not read: send the project's key as query parameter apikey.")
		case r.Header.Get("Sec-Websocket-Protocol") != "":
			return refusal.WithRemedy("A sub-protocol is not read as a key: send it as query parameter apikey.")
		}
	}
	return refusal
}

func looksLikeKey(s string) bool {
	return token.IsOpaque(s) || strings.HasPrefix(s, "ey") && strings.Count(s, ".") == 2
}

// keyRefusal gives a refused key the texts of a handshake.
func keyRefusal(err error, place string) *sluice.Refusal {
	var r *sluice.Refusal
	switch {
	case !errors.As(err, &r):
		return sluice.Refuse(sluice.CodeInternal).WithCause(err)
	case errors.Is(err, sluice.ErrTokenExpired):
		return r.WithText("Token has expired").
			WithRemedy("The API key in the %s has expired: use the publishable key, which does not; `sluice status` prints it.", place)
	case errors.Is(err, sluice.ErrTokenForm):
		return r.WithRemedy("The API key in the %s is damaged: copy it again from `sluice status`.", place)
	}
	return r
}

// openPath tells the routes that browsers open without any header. What stands
// in a key's place there is not looked at.
func openPath(rt route, rest string) bool {
	if rt.service != "auth" {
		return rt.service == "realtime" && (rest == "/api/ping" || rest == "/healthcheck")
	}
	for _, p := range []string{"/verify", "/callback", "/authorize", "/health", "/.well-known", "/sso/saml", "/oauth/authorize"} {
		if behind, ok := strings.CutPrefix(rest, p); ok && (behind == "" || behind[0] == '/') {
			return true
		}
	}
	return false
}
