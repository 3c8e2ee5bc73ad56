package gateway_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/token"
)

// keyForm is a way in which a key arrives, and what it stands for.
type keyForm struct {
	name, key string
	kind      sluice.KeyKind
	role      string      // of a valid key
	code      sluice.Code // of one that is refused
}

func keyForms(t testing.TB) []keyForm {
	anon := token.LegacyKey(token.DevJWTSecret, "anon")
	return []keyForm{
		{"publishable", token.DevPublishableKey, sluice.KeyPublishable, "anon", ""},
		{"secret", token.DevSecretKey, sluice.KeySecret, "service_role", ""},
		{"anon JWT", anon, sluice.KeyJWT, "anon", ""},
		{"service_role JWT", token.LegacyKey(token.DevJWTSecret, "service_role"), sluice.KeyJWT, "service_role", ""},
		{"user JWT", user(t, time.Hour), sluice.KeyJWT, "authenticated", ""},
		{"blanks around", " " + token.DevPublishableKey + " ", sluice.KeyPublishable, "anon", ""},
		{"percent escapes", strings.ReplaceAll(token.DevPublishableKey, "_", "%5F"), sluice.KeyPublishable, "anon", ""},
		{"unknown publishable", "sb_publishable_BBBBBBBBBBBBBBBBBBBBBB_12345678", sluice.KeyPublishable, "", sluice.CodeInvalidAPIKey},
		{"unknown secret", "sb_secret_BBBBBBBBBBBBBBBBBBBBBB_12345678", sluice.KeySecret, "", sluice.CodeInvalidAPIKey},
		{"cut short", token.DevPublishableKey[:40], sluice.KeyPublishable, "", sluice.CodeInvalidAPIKey},
		{"of another project", token.LegacyKey("another project's secret, long enough", "anon"), sluice.KeyJWT, "", sluice.CodeJwtSignatureError},
		{"expired JWT", user(t, -time.Minute), sluice.KeyJWT, "", sluice.CodeInvalidJWTToken},
		{"JWT without role", sign(t, token.DevJWTSecret, map[string]any{"exp": 9999999999}), sluice.KeyJWT, "", sluice.CodeInvalidJWTToken},
		{"alg none", "eyJhbGciOiJub25lIn0.eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjo5OTk5OTk5OTk5fQ.", sluice.KeyJWT, "", sluice.CodeJwtSignerError},
		{"broken JWT", anon[:30] + "!" + anon[31:], sluice.KeyJWT, "", sluice.CodeMalformedJWT},
		{"quoted", `"` + token.DevPublishableKey + `"`, "other", "", sluice.CodeNotAnAPIKey},
		{"with Bearer", "Bearer " + anon, "other", "", sluice.CodeNotAnAPIKey},
		{"S3 key", "625729a08b95bf1b7ff351a663f3a23c", "other", "", sluice.CodeNotAnAPIKey},
		{"password", "postgres", "other", "", sluice.CodeNotAnAPIKey},
		{"JWT secret", token.DevJWTSecret, "other", "", sluice.CodeNotAnAPIKey},
		{"undefined", "undefined", "other", "", sluice.CodeNotAnAPIKey},
	}
}

// place puts keys into a request.
type place struct {
	name string // as in Identity.KeyPlace
	put  func(r *http.Request, keys ...string)
}

func inHeader(r *http.Request, keys ...string) {
	for _, k := range keys {
		r.Header.Add("apikey", k)
	}
}

func inQuery(r *http.Request, keys ...string) {
	q := r.URL.Query()
	for _, k := range keys {
		q.Add("apikey", k)
	}
	r.URL.RawQuery = q.Encode()
}

func inBearer(r *http.Request, keys ...string) { r.Header.Set("Authorization", "Bearer "+keys[0]) }

// destination is one kind of route.
type destination struct {
	name, target string
	socket       bool
}

var destinations = []destination{
	{"auth", "/auth/v1/token?grant_type=password", false},
	{"rest", "/rest/v1/messages?select=*", false},
	{"broadcast", "/realtime/v1/api/broadcast", false},
	{"socket v1", "/realtime/v1/websocket?vsn=1.0.0", true},
	{"socket v2", "/realtime/v1/websocket?vsn=2.0.0", true},
	{"socket without vsn", "/realtime/v1/websocket", true},
	{"socket with a vsn that Realtime refuses", "/realtime/v1/websocket?vsn=garbage", true},
}

func (d destination) request() *http.Request {
	r := httptest.NewRequest("POST", d.target, nil)
	if d.socket {
		r.Method = "GET"
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Sec-WebSocket-Version", "13")
		r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	}
	return r
}

// Every form of key in every place on every route, then the usual ones again on
// fifty gateways made anew: the table of routes must not depend on chance.
//
// spec: gateway:2 gateway:8
func TestKeyMatrix(t *testing.T) {
	t.Parallel()
	all := keyForms(t)
	for start := range 51 {
		forms := all
		if start > 0 {
			forms = all[:3]
		}
		w := newWorld(t)
		serve := func(r *http.Request) (*httptest.ResponseRecorder, *call) {
			rec := httptest.NewRecorder()
			w.ServeHTTP(rec, r)
			return rec, w.last(t)
		}
		for _, d := range destinations {
			for _, f := range forms {
				for _, p := range []place{{"header", inHeader}, {"query", inQuery}} {
					name := fmt.Sprintf("start %d: %s, %s in %s", start, d.name, f.name, p.name)
					for _, twice := range []bool{false, true} {
						r := d.request()
						if p.put(r, f.key); twice {
							p.put(r, f.key) // the same one again is no conflict
						}
						rec, c := serve(r)
						wantKey(t, name, f, p.name, rec, c)
					}

					r := d.request() // a different one in the same place
					p.put(r, f.key, "sb_publishable_anotherkey")
					if rec, c := serve(r); c != nil {
						t.Errorf("%s: two different keys were let through", name)
					} else {
						wantRefusal(t, rec, http.StatusUnauthorized, sluice.CodeDuplicateAPIKey)
					}
				}

				// In both places the header counts.
				r := d.request()
				inHeader(r, f.key)
				inQuery(r, "sb_publishable_anotherkey")
				rec, c := serve(r)
				wantKey(t, d.name+", both, "+f.name, f, "header", rec, c)
				r = d.request() // an empty one does not
				inHeader(r, "")
				inQuery(r, f.key)
				rec, c = serve(r)
				wantKey(t, d.name+", empty header, "+f.name, f, "query", rec, c)
				r = d.request() // x-api-key is not read
				r.Header.Set("X-Api-Key", token.DevSecretKey)
				inHeader(r, f.key)
				rec, c = serve(r)
				wantKey(t, d.name+", x-api-key, "+f.name, f, "header", rec, c)

				if strings.HasPrefix(f.key, "sb_") { // as bearer
					r := d.request()
					inBearer(r, f.key)
					rec, c := serve(r)
					wantKey(t, d.name+", bearer, "+f.name, f, "bearer", rec, c)
				}
			}
			for _, empty := range []func(*http.Request){
				func(*http.Request) {}, func(r *http.Request) { inHeader(r, "") }, func(r *http.Request) { inQuery(r, "") },
				func(r *http.Request) { r.Header.Set("Authorization", "Basic cG9zdGdyZXM6eA==") },
				func(r *http.Request) { r.Header.Set("X-Api-Key", token.DevSecretKey) },
			} {
				r := d.request()
				empty(r)
				rec, c := serve(r)
				switch {
				case d.socket && c != nil:
					t.Errorf("%s: a socket without key was let through", d.name)
				case d.socket:
					wantRefusal(t, rec, http.StatusUnauthorized, sluice.CodeMissingAPIKey)
				case c == nil:
					t.Errorf("%s: without key: %d %s", d.name, rec.Code, rec.Body)
				case c.id.Claims.Role != "anon" || c.id.Key != sluice.KeyNone || !c.id.KeyClaims.IsZero():
					t.Errorf("%s: without key: %+v", d.name, c.id)
				}
			}
		}
	}
}

// wantKey checks what became of a request with a key of form f.
func wantKey(t *testing.T, name string, f keyForm, place string, rec *httptest.ResponseRecorder, c *call) {
	t.Helper()
	if f.code != "" {
		if c != nil {
			t.Errorf("%s: reached %s as %q", name, c.service, c.id.Claims.Role)
			return
		}
		wantRefusal(t, rec, http.StatusUnauthorized, f.code)
		return
	}
	if c == nil {
		t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		return
	}
	id := c.id
	if id.Claims.Role != f.role || id.KeyClaims.Role != f.role || id.Key != f.kind || id.KeyPlace != place || id.Refusal != nil || id.BearerErr != nil {
		t.Errorf("%s: %+v", name, id)
	}
	if !json.Valid(id.Claims.JSON) || c.header.Get("X-Api-Key") != "" {
		t.Errorf("%s: claims %q, x-api-key %q", name, id.Claims.JSON, c.header.Get("X-Api-Key"))
	}
}

// spec: rest:AU-18 rest:AU-25
func TestBearer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	valid, expired := user(t, time.Hour), user(t, -time.Minute)
	for name, tt := range map[string]struct {
		target, bearer string
		role           string
		cause          error  // of BearerErr
		text           string // of BearerErr
	}{
		"a user":                           {"/rest/v1/t", "Bearer " + valid, "authenticated", nil, ""},
		"lower case":                       {"/rest/v1/t", "bearer " + valid, "authenticated", nil, ""},
		"blanks":                           {"/rest/v1/t", "BEARER   " + valid, "authenticated", nil, ""},
		"publishable key":                  {"/rest/v1/t", "Bearer " + token.DevPublishableKey, "service_role", nil, ""},
		"anon JWT":                         {"/rest/v1/t", "Bearer " + token.LegacyKey(token.DevJWTSecret, "anon"), "anon", nil, ""},
		"no role on REST":                  {"/rest/v1/t", "Bearer " + sign(t, token.DevJWTSecret, map[string]any{"exp": 9999999999}), "anon", nil, ""},
		"no role on broadcast":             {"/realtime/v1/api/broadcast", "Bearer " + sign(t, token.DevJWTSecret, map[string]any{"exp": 9999999999}), "", sluice.ErrTokenClaims, "`role`"},
		"expired":                          {"/rest/v1/t", "Bearer " + expired, "", sluice.ErrTokenExpired, "60 seconds ago"},
		"just expired on REST":             {"/rest/v1/t", "Bearer " + user(t, -29*time.Second), "authenticated", nil, ""},
		"just expired on Auth":             {"/auth/v1/user", "Bearer " + user(t, -29*time.Second), "", sluice.ErrTokenExpired, "29 seconds ago"},
		"another secret":                   {"/auth/v1/user", "Bearer " + sign(t, "another secret of some length", map[string]any{"role": "service_role", "exp": 9999999999}), "", sluice.ErrTokenSignature, "signature"},
		"garbage":                          {"/auth/v1/user", "Bearer undefined", "", sluice.ErrTokenForm, "not a valid JWT"},
		"none":                             {"/auth/v1/user", "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjo5OTk5OTk5OTk5fQ.", "", sluice.ErrTokenKey, "signer"},
		"empty":                            {"/rest/v1/t", "Bearer ", "", sluice.ErrTokenForm, "Empty JWT is sent in Authorization header"},
		"another scheme":                   {"/rest/v1/t", "Basic " + valid, "service_role", nil, ""},
		"an unknown key beside a good one": {"/rest/v1/t", "Bearer sb_publishable_nobodys", "service_role", nil, ""},
	} {
		w.do("GET", tt.target, "Apikey", token.DevSecretKey, "Authorization", tt.bearer)
		c := w.last(t)
		if c == nil {
			t.Errorf("%s: refused by the gateway", name)
			continue
		}
		id := c.id
		if id.KeyClaims.Role != "service_role" || id.Key != sluice.KeySecret {
			t.Errorf("%s: key %+v", name, id.KeyClaims)
		}
		if tt.cause == nil {
			if id.Claims.Role != tt.role || id.BearerErr != nil {
				t.Errorf("%s: %+v, %v", name, id.Claims, id.BearerErr)
			}
			continue
		}
		if id.BearerErr == nil || !errors.Is(id.BearerErr, tt.cause) || !strings.Contains(id.BearerErr.Text, tt.text) || id.BearerErr.Status != 401 {
			t.Errorf("%s: %v", name, id.BearerErr)
		}
	}

	// As the only credential, a key in the header is who the request acts as.
	w.do("GET", "/rest/v1/t", "Authorization", "Bearer "+token.DevSecretKey)
	if c := w.last(t); c == nil || c.id.Claims.Role != "service_role" || c.id.KeyPlace != "bearer" || c.id.Bearer != "" {
		t.Errorf("secret key as bearer: %+v", c)
	}
	// A socket reads no user's token from the header.
	r := destination{target: "/realtime/v1/websocket", socket: true}.request()
	inQuery(r, token.DevPublishableKey)
	r.Header.Set("Authorization", "Bearer "+valid)
	w.ServeHTTP(httptest.NewRecorder(), r)
	if c := w.last(t); c == nil || c.id.Claims.Role != "anon" || c.id.Bearer != "" {
		t.Errorf("socket with a bearer: %+v", c)
	}
	if c := w.last(t); c != nil {
		t.Errorf("call %+v", c)
	}
}

// Strict: everything but what browsers open from a link needs a key, and the
// texts are those of a self-hosted stack's gateway.
func TestStrict(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *gateway.Config) { c.Strict = true })
	for target, open := range map[string]bool{
		"/auth/v1/token": false, "/auth/v1/user": false, "/rest/v1/t": false, "/realtime/v1/api/broadcast": false,
		"/auth/v1/verify?token=x&type=signup": true, "/auth/v1/callback": true, "/auth/v1/authorize?provider=github": true,
		"/auth/v1/.well-known/jwks.json": true, "/auth/v1/health": true, "/realtime/v1/api/ping": true, "/auth/v1/sso/saml/acs": true,
		"/auth/v1/verifyx": false, "/auth/v1/admin/../verify": true, "/auth/v1/verify/../admin": false, "/rest/v1/verify": false, "/rest/v1/health": false, "/auth/v1/": false,
	} {
		for _, header := range [][]string{nil, {"Apikey", "sb_publishable_nobodys"}, {"Apikey", "a,b"}, {"Apikey", token.DevPublishableKey}} {
			rec := w.do("GET", target, header...)
			c := w.last(t)
			if valid := len(header) > 0 && header[1] == token.DevPublishableKey; open || valid {
				if c == nil || c.id.Claims.Role != "anon" || c.id.Refusal != nil {
					t.Errorf("%s with %q: %d %s", target, header, rec.Code, rec.Body)
				}
				continue
			}
			if c != nil {
				t.Errorf("%s with %q was let through", target, header)
				continue
			}
			code, text := sluice.CodeMissingAPIKey, "No API key found in request"
			switch {
			case len(header) > 0 && header[1] == "a,b":
				code, text = sluice.CodeDuplicateAPIKey, "Duplicate API key found"
			case len(header) > 0:
				code, text = sluice.CodeInvalidAPIKey, "Invalid authentication credentials"
			}
			body := wantRefusal(t, rec, http.StatusUnauthorized, code)
			if body.Message != text || rec.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s with %q: %q, headers %v", target, header, body.Message, rec.Header())
			}
		}
	}
	if rec := w.do("OPTIONS", "/rest/v1/t"); rec.Code != http.StatusOK {
		t.Errorf("OPTIONS without key: %d", rec.Code)
	}
}

// A key in a wrong place is missing, and the answer says where it stands.
func TestMisplacedKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, jwt := token.DevPublishableKey, user(t, time.Hour)
	for name, tt := range map[string]struct {
		query  string
		header []string
		hint   string
	}{
		"parameter key":          {"key=" + key, nil, "query parameter key holds"},
		"parameter access_token": {"access_token=" + jwt, nil, "query parameter access_token holds"},
		"x-api-key":              {"", []string{"X-Api-Key", key}, "header x-api-key holds"},
		"bearer":                 {"", []string{"Authorization", "Bearer " + jwt}, "Authorization header holds"},
		"sub-protocol":           {"", []string{"Sec-WebSocket-Protocol", "phoenix, base64url.bearer.phx.x"}, "sub-protocol"},
		"nowhere":                {"", nil, "publishable key"},
	} {
		header := append([]string{"Upgrade", "websocket", "Connection", "Upgrade"}, tt.header...)
		body := wantRefusal(t, w.do("GET", "/realtime/v1/websocket?"+tt.query, header...), http.StatusUnauthorized, sluice.CodeMissingAPIKey)
		if !strings.Contains(body.Hint, tt.hint) || strings.Contains(body.Hint, key) || body.Message != "API key is missing" {
			t.Errorf("%s: %+v", name, body)
		}
	}
}

func FuzzServe(f *testing.F) {
	w := newWorld(f)
	f.Add("/rest/v1/t?apikey="+token.DevPublishableKey, "", "")
	f.Add("/realtime/v1/websocket?apikey=a&apikey=b", token.DevSecretKey, "Bearer "+token.DevSecretKey)
	f.Add("/realtime/v1/api/broadcast/room%3A3/events/%2F", "eyJhbGciOiJub25lIn0.e30.", "bearer")
	f.Add("/rest/v1/"+token.DevSecretKey+"?a=http%3A%2F%2F"+token.DevSecretKey, token.DevSecretKey, "")
	f.Add("/auth/v1/verify?token=secret-value-1&redirect_to=http%3A%2F%2Fx%23access_token%3Dsecret-value-2", "sb_", "Basic x")
	f.Fuzz(func(t *testing.T, target, key, authorization string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Skip()
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.URL, r.RequestURI = u, target
		r.Header.Set("Apikey", key)
		r.Header.Set("Authorization", authorization)
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		c := w.last(t)
		if log := w.log.take(); strings.Contains(log, token.DevSecretKey) {
			t.Errorf("the log shows the key: %s", log)
		}
		if rec.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Error("no CORS header")
		}
		if c == nil {
			if rec.Code < 400 || rec.Header().Get("X-Sluice-Code") == "" || !json.Valid(rec.Body.Bytes()) {
				t.Errorf("refused without a reason: %d %q", rec.Code, rec.Body)
			}
			return
		}
		if !strings.HasPrefix(c.path, "/") || !strings.HasSuffix(u.EscapedPath(), c.path) && c.path != "/" {
			t.Errorf("path %q became %q", u.EscapedPath(), c.path)
		}
		if c.id.Claims.Role == "" || c.id.Refusal != nil || !json.Valid(c.id.Claims.JSON) {
			t.Errorf("identity %+v", c.id)
		}
		known := strings.Contains(key+authorization+target, token.DevSecretKey[10:]) || strings.Contains(key+authorization+target, "%")
		if c.id.Claims.Role == "service_role" && !known {
			t.Errorf("service_role from %q %q %q", target, key, authorization)
		}
	})
}
