package console_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice/console"
	"github.com/sluice-dev/sluice/inspect"
)

const secret = "a-secret-that-no-page-shows"

func newConsole(t *testing.T) *console.Console {
	t.Helper()
	c, err := console.New(console.Config{
		Project: "<b>mine</b>", APIURL: "http://127.0.0.1:54321", PublishableKey: "sb_publishable_x", Database: "postgres://127.0.0.1:1/postgres",
		Values: []console.Value{{Name: "SECRET_KEY", Value: secret, Secret: true}},
		Node:   func() *inspect.Server { return nil }, Sign: func(map[string]any) (string, error) { return "tok", nil },
		Log: func() ([]byte, error) { return nil, nil }, Client: []byte("export {}"), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ask(c http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w
}

// A page elsewhere whose name points here reads nothing, and presses nothing.
func TestGuards(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	for _, host := range []string{"evil.example", "evil.example:54323", "localhost.evil.example"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if w := ask(c, method, "http://"+host+"/secret", "name=SECRET_KEY"); w.Code != 403 || strings.Contains(w.Body.String(), secret) {
				t.Errorf("%s %s: %d %s", method, host, w.Code, w.Body)
			}
		}
	}
	for _, path := range []string{"/secret", "/token", "/mend"} {
		if w := ask(c, http.MethodPost, "http://localhost:54323"+path, "name=SECRET_KEY", "Origin", "http://evil.example"); w.Code != 403 {
			t.Errorf("%s from another origin: %d", path, w.Code)
		}
		if w := ask(c, http.MethodGet, "http://localhost:54323"+path, ""); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d", path, w.Code)
		}
	}
	if w := ask(c, http.MethodPost, "http://127.0.0.1:54323/secret", url.Values{"name": {"SECRET_KEY"}}.Encode(), "Origin", "http://127.0.0.1:54323"); !strings.Contains(w.Body.String(), secret) {
		t.Errorf("its own page: %d %s", w.Code, w.Body)
	}
	if w := ask(c, http.MethodPost, "http://127.0.0.1:54323/secret", "name=DB_URL"); w.Code != 404 {
		t.Errorf("what is no secret: %d", w.Code)
	}
}

// While the services begin anew, pages say so; nothing of them is taken for HTML, and
// nothing that they load comes from elsewhere.
func TestPagesWithoutServices(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	for _, path := range []string{"/", "/connections", "/tables", "/refusals", "/changes", "/inspector", "/why", "/mails"} {
		w := ask(c, http.MethodGet, "http://localhost:54323"+path, "")
		body := w.Body.String()
		if w.Code != 200 || !strings.Contains(body, "beginning anew") || strings.Contains(body, secret) || strings.Contains(body, "<b>mine") {
			t.Errorf("%s: %d %s", path, w.Code, body)
		}
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "connect-src 'self' http://127.0.0.1:54321 ws://127.0.0.1:54321") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
	if w := ask(c, http.MethodGet, "http://localhost:54323/nothing", ""); w.Code != 404 {
		t.Errorf("no page: %d", w.Code)
	}
	if w := ask(c, http.MethodPost, "http://localhost:54323/token", "as=anon"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a token without services: %d", w.Code)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if _, err := console.New(console.Config{}); err == nil {
		t.Error("an empty configuration is taken")
	}
}
