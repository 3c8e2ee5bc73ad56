package gateway_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/token"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// buffer is a log that several goroutines may write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// take returns the log and empties it.
func (b *buffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.b.Reset()
	return b.b.String()
}

// lines returns the log's lines as objects.
func (b *buffer) lines(t *testing.T) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(b.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		out = append(out, m)
	}
	return out
}

// call is what a service received.
type call struct {
	service string
	path    string // escaped
	plain   string
	header  http.Header
	id      sluice.Identity
	hasID   bool
}

// spy is a service that records its calls and answers 200.
type spy struct {
	service string
	mu      *sync.Mutex
	calls   *[]call
}

func (s spy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, ok := sluice.IdentityFrom(r.Context())
	s.mu.Lock()
	*s.calls = append(*s.calls, call{s.service, r.URL.EscapedPath(), r.URL.Path, r.Header.Clone(), id, ok})
	s.mu.Unlock()
	_, _ = io.WriteString(w, s.service)
}

// world is a gateway before services that record.
type world struct {
	*gateway.Server
	keys  *token.Keyring
	log   buffer
	mu    sync.Mutex
	calls []call

	serving sync.RWMutex // held for reading while a request is served by withRealtime
}

// settle waits for the requests whose answers have been read: their log lines
// come last.
func (w *world) settle() {
	w.serving.Lock()
	defer w.serving.Unlock()
}

func (w *world) spy(service string) spy { return spy{service, &w.mu, &w.calls} }

// last returns the only call since the one before, or nil.
func (w *world) last(t *testing.T) *call {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.calls) > 1 {
		t.Fatalf("%d calls for one request", len(w.calls))
	}
	if len(w.calls) == 0 {
		return nil
	}
	c := w.calls[0]
	w.calls = nil
	return &c
}

// forget drops what was recorded.
func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = nil
}

func newWorld(t testing.TB, change ...func(*gateway.Config)) *world {
	t.Helper()
	keys, err := token.New(token.Config{
		Secret: token.DevJWTSecret, SigningKeys: token.DevSigningKeys,
		PublishableKeys: []sluice.Secret{token.DevPublishableKey}, SecretKeys: []sluice.Secret{token.DevSecretKey},
		Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{keys: keys}
	cfg := gateway.Config{
		Logger: slog.New(slog.NewJSONHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Keys: keys,
		Auth: w.spy("auth"), REST: w.spy("rest"), Realtime: w.spy("realtime"),
	}
	for _, f := range change {
		f(&cfg)
	}
	if w.Server, err = gateway.New(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

// do sends a request; header holds names and values in turn.
func (w *world) do(method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	return rec
}

type refusal struct {
	Message, Error, Hint string
	Code                 sluice.Code
}

// wantRefusal checks a refusal of the gateway in every respect that all of them
// share, and returns its body.
func wantRefusal(t *testing.T, rec *httptest.ResponseRecorder, status int, code sluice.Code) refusal {
	t.Helper()
	var body refusal
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
		t.Fatalf("status %d, body %q: %v", rec.Code, rec.Body, err)
	}
	h := rec.Header()
	if rec.Code != status || body.Code != code || h.Get("X-Sluice-Code") != string(code) || h.Get("X-Sluice-Refused-By") != "gateway" {
		t.Errorf("status %d, code %s (header %s by %s), want %d %s", rec.Code, body.Code, h.Get("X-Sluice-Code"), h.Get("X-Sluice-Refused-By"), status, code)
	}
	if body.Message == "" || body.Error != body.Message || body.Hint == "" {
		t.Errorf("body %s lacks a text", rec.Body)
	}
	if h.Get("Content-Type") != "application/json; charset=utf-8" || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("X-Request-Id") == "" {
		t.Errorf("headers %v", h)
	}
	return body
}

func sign(t testing.TB, secret string, claims map[string]any) string {
	t.Helper()
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(claims)).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// user is the access token of a signed-in user.
func user(t testing.TB, ttl time.Duration) string {
	return sign(t, token.DevJWTSecret, map[string]any{"role": "authenticated", "sub": "u1", "session_id": "s1", "exp": now.Add(ttl).Unix()})
}
