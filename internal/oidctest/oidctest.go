// Package oidctest is an identity provider for tests: real HTTP, signed ID tokens,
// a key set, OAuth 2 with PKCE, and pages of an API. It signs in whoever
// SetUser says, or the request's login_hint, without asking.
package oidctest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// ClientID and ClientSecret are of the one client that the provider knows.
const (
	ClientID     = "sluice-tests"
	ClientSecret = "s3cret/of tests+"
)

// Provider is a running provider.
type Provider struct {
	// URL is the address, and the issuer of ID tokens.
	URL string
	// Now is the provider's clock.
	Now func() time.Time

	t    testing.TB
	key  *ecdsa.PrivateKey
	mux  *http.ServeMux
	mu   sync.Mutex
	user map[string]any // claims of who signs in

	codes    map[string]code
	tokens   map[string]bool
	requests []*http.Request
	document map[string]any
}

// code is one that was handed out.
type code struct{ redirect, challenge, nonce, hint string }

// New starts a provider, which ends with the test.
func New(t testing.TB) *Provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &Provider{t: t, key: key, mux: http.NewServeMux(), Now: time.Now, codes: map[string]code{}, tokens: map[string]bool{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.requests = append(p.requests, r)
		p.mu.Unlock()
		p.mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.URL = server.URL
	p.document = map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
		"id_token_signing_alg_values_supported": []string{"ES256"}, "token_endpoint_auth_methods_supported": []string{"client_secret_basic"},
		"code_challenge_methods_supported": []string{"S256"},
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/v2.0/.well-known/openid-configuration"} {
		p.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			p.mu.Lock()
			defer p.mu.Unlock()
			writeJSON(w, 200, p.document)
		})
	}
	p.mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	})
	for _, path := range []string{"/authorize", "/login/oauth/authorize", "/oauth/authorize", "/api/oauth2/authorize", "/dialog/oauth", "/i/oauth2/authorize"} {
		p.mux.HandleFunc(path, p.authorize)
	}
	for _, path := range []string{"/token", "/login/oauth/access_token", "/oauth/token", "/api/oauth2/token", "/oauth/access_token", "/2/oauth2/token"} {
		p.mux.HandleFunc(path, p.token)
	}
	return p
}

// SetUser says who signs in from now on: the claims of the ID token.
func (p *Provider) SetUser(claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.user = claims
}

// SetDocument changes a field of the provider's document.
func (p *Provider) SetDocument(field string, value any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.document[field] = value
}

// Serve answers a page of the API with JSON, to who comes with a token.
func (p *Provider) Serve(path string, answer any) {
	p.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		known := p.tokens[r.Header.Get("Authorization")]
		p.mu.Unlock()
		if !known {
			writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "no token"})
			return
		}
		writeJSON(w, 200, answer)
	})
}

// Requests are those that the provider got.
func (p *Provider) Requests() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// authorize sends the browser back with a code at once.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("client_id") != ClientID || q.Get("response_type") != "code" {
		writeJSON(w, 400, map[string]any{"error": "invalid_request"})
		return
	}
	word := rand.Text()
	p.mu.Lock()
	p.codes[word] = code{q.Get("redirect_uri"), q.Get("code_challenge"), q.Get("nonce"), q.Get("login_hint")}
	p.mu.Unlock()
	back.RawQuery = url.Values{"code": {word}, "state": {q.Get("state")}}.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

// token exchanges a code, once.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	id, secret, basic := r.BasicAuth()
	if basic {
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	p.mu.Lock()
	c, found := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	claims := maps.Clone(p.user)
	p.mu.Unlock()
	if c.hint != "" {
		claims = map[string]any{"sub": c.hint, "name": c.hint, "email": c.hint + "@example.org", "email_verified": true}
	}
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	switch {
	case id != ClientID || secret != ClientSecret:
		writeJSON(w, 401, map[string]any{"error": "invalid_client"})
		return
	case !found, c.redirect != r.PostFormValue("redirect_uri"),
		c.challenge != "" && c.challenge != base64.RawURLEncoding.EncodeToString(sum[:]):
		writeJSON(w, 400, map[string]any{"error": "invalid_grant", "access_token": "must-not-be-logged"})
		return
	}
	access := "provider-" + rand.Text()
	if c.nonce != "" {
		claims["nonce"] = c.nonce
	}
	p.mu.Lock()
	p.tokens["Bearer "+access] = true
	p.mu.Unlock()
	writeJSON(w, 200, map[string]any{
		"access_token": access, "refresh_token": "refresh-" + access, "token_type": "bearer", "expires_in": 3600,
		"id_token": p.IDToken(claims, access),
	})
}

// IDToken signs claims; iss, aud, iat and exp are filled in where they are missing,
// and at_hash where there is an access token.
func (p *Provider) IDToken(claims map[string]any, access string) string {
	all := jwt.MapClaims{"iss": p.URL, "aud": ClientID, "iat": p.Now().Unix(), "exp": p.Now().Add(time.Hour).Unix()}
	if access != "" {
		sum := sha256.Sum256([]byte(access))
		all["at_hash"] = base64.RawURLEncoding.EncodeToString(sum[:16])
	}
	maps.Copy(all, claims)
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	tok.Header["kid"] = "k1"
	text, err := tok.SignedString(p.key)
	if err != nil {
		panic(err) // the key is ours
	}
	return text
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}
