package auth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/token"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// buffer is a log that several goroutines write.
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

// stack is Auth behind what the gateway does with key and token.
type stack struct {
	*pgtest.DB
	t      testing.TB
	clock  *clock
	keys   *token.Keyring
	server *auth.Server
	log    *buffer
	post   *post
}

// issuer is the public URL of the tests' Auth.
const issuer = "http://127.0.0.1:54321/auth/v1"

func keyring(t testing.TB, change func(*token.Config)) *token.Keyring {
	t.Helper()
	cfg := token.Config{
		Secret: token.DevJWTSecret, SigningKeys: token.DevSigningKeys,
		PublishableKeys: []sluice.Secret{token.DevPublishableKey}, SecretKeys: []sluice.Secret{token.DevSecretKey},
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

// start serves Auth over a database of the test's own, with the settings of a
// stock local stack and cheap password hashes.
func start(t testing.TB, change func(*auth.Config)) *stack {
	t.Helper()
	return startOn(t, pgtest.New(t), change)
}

func startOn(t testing.TB, db *pgtest.DB, change func(*auth.Config)) *stack {
	t.Helper()
	s := &stack{DB: db, t: t, clock: &clock{t: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}, log: &buffer{}, post: &post{}}
	s.keys = keyring(t, func(c *token.Config) { c.Now = s.clock.now })
	s.server = s.serve(change)
	return s
}

// serve makes a further server over the same database.
func (s *stack) serve(change func(*auth.Config)) *auth.Server {
	s.t.Helper()
	cfg := auth.Config{
		Pool: s.Pool("supabase_auth_admin"), Keys: s.keys, Now: s.clock.now, ExternalURL: issuer,
		Logger:       slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		EnableSignup: true, EnableEmail: true, EmailAutoconfirm: true,
		RefreshTokenRotation: true, ReuseInterval: 10 * time.Second,
		Mailer: s.post, DoubleConfirmChanges: true, MailInterval: time.Second,
		RedirectURLs: []string{"https://app.example.com/**"},

		RequestTimeout: 5 * time.Minute, // the machine may be busy
	}
	if change != nil {
		change(&cfg)
	}
	server, err := auth.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	server.UseHashCost(4, 4, 100)
	server.WaitForLocks(5 * time.Minute)
	return server
}

// identify does what the gateway does.
func (s *stack) identify(r *http.Request) sluice.Identity {
	id := sluice.Identity{
		Key: sluice.KeyNone, Claims: sluice.Claims{Role: "anon", JSON: json.RawMessage(`{"role":"anon"}`)}, RequestID: "request-1",
	}
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		bearer = ""
	}
	key := r.Header.Get("apikey")
	if token.IsOpaque(bearer) {
		if key == "" {
			key = bearer
		}
		bearer = ""
	}
	if key != "" {
		found, err := s.keys.ResolveKey(key)
		if err != nil {
			s.t.Errorf("API key: %v", err)
		}
		id.Key, id.KeyClaims, id.Claims = found.Kind, found.Claims, found.Claims
	}
	if bearer == "" {
		return id
	}
	id.Bearer = sluice.Secret(bearer)
	claims, err := s.keys.VerifyBearer(bearer, token.AuthRules)
	if errors.As(err, &id.BearerErr) {
		return id
	}
	id.Claims = claims
	return id
}

// object is decoded JSON.
type object = map[string]any

// reply is an answer of Auth.
type reply struct {
	t      testing.TB
	call   string
	status int
	header http.Header
	text   string
	body   object
}

// option changes a request.
type option func(*http.Request)

func with(header, value string) option {
	return func(r *http.Request) {
		if value == "" {
			r.Header.Del(header)
		} else {
			r.Header.Set(header, value)
		}
	}
}

// as sends an access token, or an API key in its place.
func as(tok string) option { return with("Authorization", "Bearer "+tok) }

// admin sends the secret key as stock clients do.
func admin(r *http.Request) {
	r.Header.Set("apikey", token.DevSecretKey)
	r.Header.Set("Authorization", "Bearer "+token.DevSecretKey)
}

// legacy asks for the error format of before API versions.
var legacy = with("X-Supabase-Api-Version", "")

// do sends a request as auth-js does when nobody is signed in. body is JSON text
// or a value to encode; nil is none.
func (s *stack) do(method, path string, body any, options ...option) *reply {
	s.t.Helper()
	return s.doOn(s.server, method, path, body, options...)
}

func (s *stack) doOn(server *auth.Server, method, path string, body any, options ...option) *reply {
	s.t.Helper()
	var text io.Reader = http.NoBody
	switch b := body.(type) {
	case nil:
	case string:
		text = strings.NewReader(b)
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			s.t.Fatal(err)
		}
		text = bytes.NewReader(enc)
	}
	r := httptest.NewRequest(method, path, text)
	r.Header.Set("apikey", token.DevPublishableKey)
	r.Header.Set("Authorization", "Bearer "+token.DevPublishableKey)
	r.Header.Set("X-Supabase-Api-Version", "2024-01-01")
	r.Header.Set("User-Agent", "tests")
	for _, o := range options {
		o(r)
	}
	ctx := sluice.WithIdentity(context.Background(), s.identify(r))
	w := httptest.NewRecorder()
	server.ServeHTTP(w, r.WithContext(ctx))
	out := &reply{t: s.t, call: method + " " + path, status: w.Code, header: w.Header(), text: w.Body.String()}
	if strings.HasPrefix(out.text, "{") {
		if err := json.Unmarshal([]byte(out.text), &out.body); err != nil {
			s.t.Fatalf("%s: body is no JSON: %s", out.call, out.text)
		}
	}
	return out
}

// ok fails the test unless the answer has the status.
func (r *reply) ok(status int) *reply {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("%s: status %d, want %d: %s", r.call, r.status, status, r.text)
	}
	return r
}

// refused fails the test unless the answer is this refusal, in the format of
// 2024-01-01, with every header that belongs to it.
func (r *reply) refused(status int, code, message string) *reply {
	r.t.Helper()
	r.ok(status)
	want := object{"code": code, "message": message}
	got := object{"code": r.body["code"], "message": r.body["message"]}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("%s: refusal (-want +got):\n%s", r.call, diff)
	}
	for name, value := range map[string]string{
		"x-sb-error-code": code, "X-Supabase-Api-Version": "2024-01-01", "X-Sluice-Refused-By": "auth",
		"Content-Type": "application/json",
	} {
		if r.header.Get(name) != value {
			r.t.Errorf("%s: header %s is %q, want %q", r.call, name, r.header.Get(name), value)
		}
	}
	if r.header.Get("X-Sluice-Code") == "" {
		r.t.Errorf("%s: no X-Sluice-Code", r.call)
	}
	return r
}

// at walks into the body; "user.email", "identities.0.provider".
func (r *reply) at(path string) any {
	r.t.Helper()
	var v any = r.body
	for step := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case object:
			v = in[step]
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil || i >= len(in) {
				r.t.Fatalf("%s: nothing at %s: %s", r.call, path, r.text)
			}
			v = in[i]
		default:
			r.t.Fatalf("%s: nothing at %s: %s", r.call, path, r.text)
		}
	}
	return v
}

func (r *reply) str(path string) string {
	r.t.Helper()
	v, ok := r.at(path).(string)
	if !ok {
		r.t.Fatalf("%s: %s is no string: %s", r.call, path, r.text)
	}
	return v
}

// access, refresh and id are of a token response.
func (r *reply) access() string  { r.t.Helper(); return r.str("access_token") }
func (r *reply) refresh() string { r.t.Helper(); return r.str("refresh_token") }
func (r *reply) id() string      { r.t.Helper(); return r.str("user.id") }

// claims reads an access token without looking at its signature.
func (r *reply) claims() object {
	r.t.Helper()
	out := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(r.access(), out); err != nil {
		r.t.Fatal(err)
	}
	return object(out)
}

const password = "correct horse"

// signUp makes a user with the tests' password.
func (s *stack) signUp(email string) *reply {
	s.t.Helper()
	return s.do("POST", "/signup", object{"email": email, "password": password}).ok(200)
}

func (s *stack) login(email, password string) *reply {
	s.t.Helper()
	return s.do("POST", "/token?grant_type=password", object{"email": email, "password": password})
}

func (s *stack) renew(refresh string, options ...option) *reply {
	s.t.Helper()
	return s.do("POST", "/token?grant_type=refresh_token", object{"refresh_token": refresh}, options...)
}

// count runs a query that returns one number.
func (s *stack) count(sql string, args ...any) (n int) {
	s.t.Helper()
	if err := s.Admin().QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		s.t.Fatalf("%v\n%s", err, sql)
	}
	return n
}

// text runs a query that returns one text.
func (s *stack) text(sql string, args ...any) (v string) {
	s.t.Helper()
	if err := s.Admin().QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		s.t.Fatalf("%v\n%s", err, sql)
	}
	return v
}

// same fails the test unless got equals want.
func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// decode reads an answer that is an array.
func (s *stack) decode(r *reply) (list []any) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(r.text), &list); err != nil {
		s.t.Fatalf("%s: %v: %s", r.call, err, r.text)
	}
	return list
}
