package gateway

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/token"
)

// anonymous is who a request without a key acts as.
var anonymous = sluice.Claims{Role: "anon", JSON: json.RawMessage(`{"role":"anon"}`)}

// identify resolves the API key and the bearer token of a request, the same way
// on every route. A key is looked for in header apikey, query apikey, then
// Authorization: Bearer sb_…; x-api-key from outside counts for nothing. A
// refusal is about the key; a bad bearer token is left to the service, which
// answers it in its own format.
func (s *Server) identify(r *http.Request, rt route, rest string) (sluice.Identity, *sluice.Refusal) {
	r.Header.Del("X-Api-Key")
	id := sluice.Identity{Key: sluice.KeyNone, Claims: anonymous, RequestID: r.Header.Get("X-Request-Id")}
	bearer := bearerOf(r.Header)
	key, place, refusal := findKey(r, bearer)
	if refusal != nil {
		return id, refusal
	}
	if token.IsOpaque(bearer) {
		bearer = ""
	}
	socket := rt.service == "realtime" && isSocket(rest)
	if key == "" {
		if !openPath(rt, rest) && (socket || s.cfg.Strict && r.Method != http.MethodOptions) {
			return id, missing(r, socket)
		}
	} else {
		id.KeyPlace = place
		found, err := s.cfg.Keys.ResolveKey(key)
		if err != nil {
			return id, keyRefusal(err, place)
		}
		id.Key, id.KeyClaims, id.Claims = found.Kind, found.Claims, found.Claims
	}
	if bearer == "" || socket {
		return id, nil
	}
	id.Bearer = sluice.Secret(bearer)
	claims, err := s.cfg.Keys.VerifyBearer(bearer)
	if err != nil {
		var refused *sluice.Refusal
		if !errors.As(err, &refused) {
			refused = sluice.Refuse(sluice.CodeInternal).WithCause(err)
		}
		id.BearerErr = refused
		return id, nil
	}
	id.Claims = claims
	return id, nil
}

// bearerOf returns the token of an Authorization header with scheme Bearer.
func bearerOf(h http.Header) string {
	scheme, tok, _ := strings.Cut(strings.TrimSpace(h.Get("Authorization")), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(tok)
}

// findKey returns the first API key and where it stood.
func findKey(r *http.Request, bearer string) (key, place string, refusal *sluice.Refusal) {
	for _, p := range []struct {
		place  string
		values []string
	}{{"header", r.Header.Values("Apikey")}, {"query", r.URL.Query()["apikey"]}} {
		for _, v := range p.values {
			switch {
			case strings.TrimSpace(v) == "" || key == v:
			case key == "":
				key, place = v, p.place
			case place == p.place:
				return "", "", sluice.Refuse(sluice.CodeDuplicateAPIKey).WithText("The request carries two different API keys in its %s", place)
			}
		}
		if key != "" {
			return key, place, nil
		}
	}
	if token.IsOpaque(bearer) {
		return bearer, "bearer", nil
	}
	return "", "", nil
}

// misplaced are query parameters and headers where keys are put by mistake.
var misplaced = []string{"key", "api_key", "api-key", "token", "access_token", "anon_key", "publishable_key"}

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
	if socket {
		switch {
		case looksLikeKey(bearerOf(r.Header)):
			return refusal.WithRemedy("The key stands in the Authorization header, which a socket does not read: send it as query parameter apikey.")
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

// openPath tells the routes that browsers open without any header.
func openPath(rt route, rest string) bool {
	if rt.service != "auth" {
		return rt.service == "realtime" && (rest == "/api/ping" || rest == "/healthcheck")
	}
	for _, p := range []string{"/verify", "/callback", "/authorize", "/health", "/.well-known/", "/sso/saml/", "/oauth/authorize"} {
		if rest == strings.TrimSuffix(p, "/") || rest == p || strings.HasPrefix(rest, strings.TrimSuffix(p, "/")+"/") {
			return true
		}
	}
	return false
}

// requestID takes over a sane id from outside, so that logs of several hops
// agree, or makes one. The service finds it in the request's header.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if !saneID(id) {
		var b [12]byte
		_, _ = rand.Read(b[:]) // never fails
		id = base64.RawURLEncoding.EncodeToString(b[:])
		r.Header.Set("X-Request-Id", id)
	}
	return id
}

func saneID(s string) bool {
	if len(s) < 8 || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if !(c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return false
		}
	}
	return true
}
