package gateway_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/token"
)

// spec: gateway:1
func TestRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *gateway.Config) { c.Extra = map[string]http.Handler{"/chat/": http.NotFoundHandler()} })
	for target, want := range map[string]struct{ service, path string }{
		"/auth/v1/token?grant_type=password":      {"auth", "/token"},
		"/auth/v1/":                               {"auth", "/"},
		"/auth/v1":                                {"auth", "/"},
		"/auth/v1/.well-known/jwks.json":          {"auth", "/.well-known/jwks.json"},
		"/rest/v1/messages?select=*":              {"rest", "/messages"},
		"/rest/v1":                                {"rest", "/"},
		"/rest/v1/a%2Fb":                          {"rest", "/a%2Fb"},
		"/rest/v1/with%20blank":                   {"rest", "/with%20blank"},
		"/rest/v1//double":                        {"rest", "//double"},
		"/rest/v1/x/../auth":                      {"rest", "/auth"},
		"/rest/v1/../../auth/v1/user":             {"auth", "/user"},
		"/rest/v1/%2e%2E/v1/./t/.":                {"rest", "/t/"},
		"/../../rest/v1/t/..":                     {"rest", "/"},
		"/rest/v1/...":                            {"rest", "/..."},
		"/rest/v1/.hidden":                        {"rest", "/.hidden"},
		"/%72est/v1/%74%2d":                       {"rest", "/t-"},
		"/rest/v1/a%252e%252e":                    {"rest", "/a%252e%252e"},
		"/rest/v1/rpc/f":                          {"rest", "/rpc/f"},
		"/graphql/v1":                             {"rest", "/rpc/graphql"},
		"/graphql/v1/":                            {"rest", "/rpc/graphql"},
		"/graphql/v1/more":                        {"rest", "/rpc/graphql/more"},
		"/realtime/v1/api/broadcast":              {"realtime", "/api/broadcast"},
		"/realtime/v1/api/broadcast/room%3A3/e/x": {"realtime", "/api/broadcast/room%3A3/e/x"},
		"/realtime/v1/api/broadcast/r%C3%BC%2F1":  {"realtime", "/api/broadcast/r%C3%BC%2F1"},
	} {
		rec := w.do("GET", target)
		c := w.last(t)
		if c == nil {
			t.Errorf("%s: status %d, no call", target, rec.Code)
			continue
		}
		plain, err := url.PathUnescape(want.path)
		if c.service != want.service || c.path != want.path || c.plain != plain || err != nil {
			t.Errorf("%s: %s sees %q (%q), want %s %q", target, c.service, c.path, c.plain, want.service, want.path)
		}
	}
	for _, target := range []string{"/", "/unknown", "/rest", "/rest/v2/x", "/rest/v1x", "/restv1/", "/REST/v1/x", "/v1/rest", "//rest/v1/x", "/rest/v1/..", "/rest%2Fv1/x", "/auth/v1/../v2/x"} {
		body := wantRefusal(t, w.do("GET", target), http.StatusNotFound, sluice.CodeRouteNotFound)
		if body.Message != "no Route matched with those values" {
			t.Errorf("%s: %q", target, body.Message)
		}
	}
	for target, service := range map[string]string{
		"/storage/v1/object/a": "storage", "/functions/v1/hello": "functions", "/pg/": "pg-meta",
		"/analytics/v1/x": "analytics", "/functions/v1/_internal/health": "functions", "/mcp": "mcp", "/pooler/v2/x": "pooler",
	} {
		for _, method := range []string{"GET", "POST"} {
			body := wantRefusal(t, w.do(method, target, "Apikey", "sb_publishable_wrong"), http.StatusNotImplemented, sluice.CodeNotServed)
			if !strings.Contains(body.Message, service) {
				t.Errorf("%s: %q does not name %s", target, body.Message, service)
			}
		}
	}
	if c := w.last(t); c != nil {
		t.Errorf("a refused request reached %s", c.service)
	}
}

// The path by which a request is judged is the one that is served: neither dot
// segments nor escapes lead past the key.
func TestPathIsDecidedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *gateway.Config) { c.Strict = true })
	for target, service := range map[string]string{ // "": refused for want of a key
		"/auth/v1/verify":                     "auth",
		"/auth/v1/%76erify":                   "auth",
		"/auth/v1/signup/../verify":           "auth",
		"/auth/v1/verify/../signup":           "",
		"/auth/v1/verify/%2e%2e/signup":       "",
		"/auth/v1/verify/.%2E/signup":         "",
		"/auth/v1/verify/./../signup":         "",
		"/auth/v1/health/x/../../token":       "",
		"/rest/v1/../../auth/v1/user":         "",
		"/auth/v1/verify/../../../rest/v1/t":  "",
		"/realtime/v1/healthcheck/../api/x":   "",
		"/rest-admin/v1/ready/../../../pg/..": "-", // no route
	} {
		rec := w.do("POST", target)
		c := w.last(t)
		switch {
		case service == "":
			wantRefusal(t, rec, http.StatusUnauthorized, sluice.CodeMissingAPIKey)
		case service == "-":
			wantRefusal(t, rec, http.StatusNotFound, sluice.CodeRouteNotFound)
		case c == nil || c.service != service || c.path != "/verify":
			t.Errorf("%s: %d, %+v", target, rec.Code, c)
		}
		if service != "auth" && c != nil {
			t.Errorf("%s reaches %s %s", target, c.service, c.path)
		}
	}
	for _, target := range []string{
		"/auth/v1/verify/..%2Fsignup", "/auth/v1/verify/%2e%2e%2fsignup", "/auth/v1/verify%2F..%2Fsignup", "/rest/v1/a%2F.", "/rest/v1/..%5Ct",
		"/rest/v1/%2F..",
	} {
		wantRefusal(t, w.do("POST", target, "Apikey", token.DevPublishableKey), http.StatusBadRequest, sluice.CodeBadRequest)
	}
	if c := w.last(t); c != nil {
		t.Errorf("a refused request reached %s", c.service)
	}

	// The socket is the socket however its path is written: it asks for a key.
	w = newWorld(t)
	for _, target := range []string{"/realtime/v1/%77ebsocket", "/realtime/v1/x/../websocket", "/realtime/v1/socket/%2e/websocket"} {
		wantRefusal(t, w.do("GET", target, "Upgrade", "websocket", "Connection", "Upgrade"), http.StatusUnauthorized, sluice.CodeMissingAPIKey)
	}
}

// A canonical path is its own canonical form, has no dot segments, and says what
// the path said.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/x", "/a%2Fb", "/..%2f", "//", "/a/.", "*", "", "/%zz", "/%25%32%65"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI(s)
		if err != nil {
			t.Skip()
		}
		path, refusal := gateway.Canonical(u.EscapedPath())
		if refusal != nil {
			return
		}
		plain, err := url.PathUnescape(path)
		if err != nil {
			t.Fatalf("%q becomes %q: %v", s, path, err)
		}
		for part := range strings.SplitSeq(strings.ReplaceAll(plain, `\`, "/"), "/") {
			if part == "." || part == ".." {
				t.Errorf("%q becomes %q", s, path)
			}
		}
		if again, refusal := gateway.Canonical(path); again != path || refusal != nil {
			t.Errorf("%q becomes %q, that %q, %v", s, path, again, refusal)
		}
		if !strings.Contains(u.Path, "/.") && !strings.Contains(u.Path, `\.`) && !strings.HasPrefix(u.Path, ".") && plain != u.Path {
			t.Errorf("%q means %q, %q means %q", s, u.Path, path, plain)
		}
	})
}

// A service that is not configured is not served.
func TestServiceLeftOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *gateway.Config) { c.Auth, c.REST, c.Realtime = nil, nil, nil })
	for _, target := range []string{"/auth/v1/health", "/rest/v1/", "/graphql/v1", "/realtime/v1/websocket"} {
		wantRefusal(t, w.do("GET", target), http.StatusNotImplemented, sluice.CodeNotServed)
	}
}

func TestNewRefusesRoutes(t *testing.T) {
	t.Parallel()
	h := http.NotFoundHandler()
	for name, tt := range map[string]struct {
		extra map[string]http.Handler
		want  string // "" : fine
	}{
		"a service's path":    {map[string]http.Handler{"/rest/v1": h}, `two routes on "/rest/v1"`},
		"with trailing slash": {map[string]http.Handler{"/auth/v1/": h}, `two routes on "/auth/v1"`},
		"the same twice":      {map[string]http.Handler{"/a": h, "/a/": h}, `two routes on "/a"`},
		"no slash in front":   {map[string]http.Handler{"chat": h}, "slash in front"},
		"no handler":          {map[string]http.Handler{"/chat": nil}, "needs a handler"},
		"below a service":     {map[string]http.Handler{"/rest/v1/special": h}, ""},
		"site":                {map[string]http.Handler{"/": h}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := gateway.New(gateway.Config{Logger: slog.New(slog.DiscardHandler), Keys: &token.Keyring{}, Extra: tt.extra})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := gateway.New(gateway.Config{}); err == nil {
		t.Error("New takes an empty Config")
	}
}

func TestExtraRoutes(t *testing.T) {
	t.Parallel()
	var w *world
	w = newWorld(t, func(c *gateway.Config) {
		c.Extra = map[string]http.Handler{
			"/":                spyOf(&w, "site"),
			"/rest/v1/special": spyOf(&w, "special"),
		}
	})
	for target, want := range map[string]struct{ service, path string }{
		"/":                   {"site", "/"},
		"/app.js":             {"site", "/app.js"},
		"/rest/v2":            {"site", "/rest/v2"},
		"/rest/v1/special/a":  {"special", "/a"},
		"/rest/v1/specialist": {"rest", "/specialist"},
	} {
		w.do("GET", target, "Apikey", token.DevPublishableKey)
		if c := w.last(t); c == nil || c.service != want.service || c.path != want.path {
			t.Errorf("%s: %+v", target, c)
		} else if c.hasID != (want.service == "rest") {
			t.Errorf("%s: has an identity: %v", target, c.hasID)
		}
	}
}

// spyOf is a spy of a world that is still being made.
func spyOf(w **world, service string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*w).spy(service).ServeHTTP(rw, r) })
}

func TestReady(t *testing.T) {
	t.Parallel()
	var cause error
	w := newWorld(t, func(c *gateway.Config) { c.Ready = func(context.Context) error { return cause } })
	if rec := w.do("HEAD", "/rest-admin/v1/ready"); rec.Code != http.StatusOK {
		t.Errorf("ready: %d", rec.Code)
	}
	cause = errors.New("the schema cache is empty")
	if rec := w.do("HEAD", "/rest-admin/v1/ready"); rec.Code != http.StatusServiceUnavailable {
		t.Errorf("not ready: %d", rec.Code)
	}
}

// spec: rest:RT-17 rest:RT-18 rest:RT-19 auth:6
func TestCORS(t *testing.T) {
	t.Parallel()
	careless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://only.example")
		w.Header().Set("Access-Control-Expose-Headers", "Nothing")
		w.Header().Set("Content-Range", "0-1/2")
		if r.URL.Path == "/silent" {
			return
		}
		if r.URL.Path == "/status" {
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = io.WriteString(w, "[]")
	})
	w := newWorld(t, func(c *gateway.Config) { c.REST, c.Strict = careless, true })
	key := []string{"Apikey", token.DevPublishableKey}
	for name, tt := range map[string]struct {
		method, target string
		header         []string
		status         int
	}{
		"a service's answer":      {"GET", "/rest/v1/t", key, 200},
		"with status":             {"GET", "/rest/v1/status", key, 418},
		"without origin":          {"POST", "/auth/v1/token", key, 200},
		"with origin":             {"GET", "/rest/v1/t", append(key, "Origin", "http://localhost:3000"), 200},
		"no key":                  {"GET", "/rest/v1/t", nil, 401},
		"bad key":                 {"GET", "/rest/v1/t", []string{"Apikey", "x"}, 401},
		"no route":                {"GET", "/nowhere", nil, 404},
		"not served":              {"GET", "/storage/v1/x", nil, 501},
		"plain options":           {"OPTIONS", "/rest/v1/t", key, 200},
		"socket without key":      {"GET", "/realtime/v1/websocket", []string{"Upgrade", "websocket", "Connection", "Upgrade"}, 401},
		"socket without anything": {"GET", "/realtime/v1/websocket", key, 400},
		"options without origin":  {"OPTIONS", "/auth/v1/user", []string{"Access-Control-Request-Method", "GET"}, 200},
	} {
		rec := w.do(tt.method, tt.target, tt.header...)
		h := rec.Header()
		if rec.Code != tt.status || len(h.Values("Access-Control-Allow-Origin")) != 1 || h.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d, Allow-Origin %q", name, rec.Code, h.Values("Access-Control-Allow-Origin"))
		}
		for _, want := range []string{"Content-Range", "Content-Location", "Location", "X-Total-Count", "Link", "X-Supabase-Api-Version", "X-Sb-Error-Code", "X-Sluice-Code", "X-Request-Id"} {
			if !strings.Contains(", "+h.Get("Access-Control-Expose-Headers")+",", ", "+want+",") {
				t.Errorf("%s: %s is not exposed by %q", name, want, h.Get("Access-Control-Expose-Headers"))
			}
		}
		if h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: credentials are allowed for any origin", name)
		}
	}

	w.forget()
	const asked = "apikey, authorization, content-type, x-client-info, x-supabase-api-version, x-something-of-next-year"
	for _, target := range []string{"/rest/v1/t", "/auth/v1/token", "/realtime/v1/api/broadcast", "/realtime/v1/websocket", "/storage/v1/x", "/nowhere"} {
		rec := w.do("OPTIONS", target, "Origin", "http://localhost:3000", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", asked)
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin":   "*",
			"Access-Control-Allow-Methods":  "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT",
			"Access-Control-Allow-Headers":  asked,
			"Access-Control-Max-Age":        "86400",
			"Access-Control-Expose-Headers": "",
			"Content-Length":                "0",
		} {
			if got := rec.Header().Get(name); got != want {
				t.Errorf("preflight of %s: %s is %q, want %q", target, name, got, want)
			}
		}
		if rec.Code != http.StatusOK || rec.Body.Len() != 0 {
			t.Errorf("preflight of %s: %d %q", target, rec.Code, rec.Body)
		}
		if c := w.last(t); c != nil {
			t.Errorf("the preflight reached %s", c.service)
		}
	}
	rec := w.do("OPTIONS", "/rest/v1/t", "Origin", "http://x", "Access-Control-Request-Method", "GET")
	if _, has := rec.Header()["Access-Control-Allow-Headers"]; has {
		t.Error("a preflight that asks for no headers is told of some")
	}
}

// With a list of origins, pages of others may read nothing, refusals included.
//
// spec: rest:RT-20
func TestAllowedOrigins(t *testing.T) {
	t.Parallel()
	careless := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Vary", "Accept-Encoding")
		_, _ = io.WriteString(w, "[]")
	})
	w := newWorld(t, func(c *gateway.Config) {
		c.REST, c.Origins = careless, []string{"https://app.example", "http://localhost:3000"}
	})
	key := []string{"Apikey", token.DevPublishableKey}
	preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "apikey"}
	for name, header := range map[string][]string{"GET": key, "POST": nil, "OPTIONS": preflight} { // nil: refused
		for origin, want := range map[string]string{
			"https://app.example": "https://app.example", "http://localhost:3000": "http://localhost:3000", "HTTPS://App.example": "HTTPS://App.example",
			"http://app.example": "", "https://app.example.evil.example": "", "https://app.example:8443": "", "null": "", "": "",
		} {
			header := header
			if origin != "" {
				header = append([]string{"Origin", origin}, header...)
			}
			rec := w.do(name, "/rest/v1/t", header...)
			w.forget()
			h := rec.Header()
			if got := h.Values("Access-Control-Allow-Origin"); strings.Join(got, "|") != want {
				t.Errorf("%s from %q: Allow-Origin %q", name, origin, got)
			}
			if got := h.Get("Access-Control-Allow-Credentials"); (got == "true") != (want != "") {
				t.Errorf("%s from %q: Allow-Credentials %q", name, origin, got)
			}
			if got := strings.Join(h.Values("Vary"), ", "); !strings.Contains(got, "Origin") {
				t.Errorf("%s from %q: Vary %q", name, origin, got)
			}
			if want != "" {
				continue
			}
			for _, n := range []string{"Access-Control-Expose-Headers", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers"} {
				if h.Get(n) != "" {
					t.Errorf("%s from %q: %s is sent", name, origin, n)
				}
			}
		}
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for sent, kept := range map[string]bool{
		"0b5b7d3e-2f6a-4f43-9a52-0d2d3c5f9f11": true, "abcdefgh": true, "short": false, "": false,
		"with blank and": false, "line\nbreak": false, strings.Repeat("x", 65): false, token.DevSecretKey: false,
	} {
		r := httptest.NewRequest("GET", "/rest/v1/t", nil)
		r.Header["X-Request-Id"] = []string{sent}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		got := rec.Header().Get("X-Request-Id")
		c := w.last(t)
		if (got == sent) != kept || len(got) < 8 || c.id.RequestID != got || c.header.Get("X-Request-Id") != got {
			t.Errorf("sent %q: answered %q, service sees %q and %q", sent, got, c.id.RequestID, c.header.Get("X-Request-Id"))
		}
	}
}
