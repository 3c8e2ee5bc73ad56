package rest_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/rest"
	"github.com/sluice-dev/sluice/schema"
	"github.com/sluice-dev/sluice/token"
)

var update = flag.Bool("update", false, "write the cases' results into testdata")

const (
	alice = "00000000-0000-4000-8000-00000000000a"
	bob   = "00000000-0000-4000-8000-00000000000b"
)

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

// stack is REST behind the gateway, over a database of the test's own with the
// tables of testdata/schema.sql.
type stack struct {
	*pgtest.DB
	t       testing.TB
	users   *pg.Pool
	cache   *schema.Cache
	server  *rest.Server
	gateway http.Handler
	log     *buffer
	logger  *slog.Logger
}

func start(t testing.TB, change func(*rest.Config)) *stack {
	t.Helper()
	return startWith(t, schemaSQL(t), change)
}

// startPrivate has a server of its own, whose roles may be changed.
func startPrivate(t testing.TB) *stack {
	t.Helper()
	return startOn(t, pgtest.Private(t), schemaSQL(t), nil)
}

func schemaSQL(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("testdata/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func startWith(t testing.TB, sql string, change func(*rest.Config)) *stack {
	t.Helper()
	return startOn(t, pgtest.New(t), sql, change)
}

func startOn(t testing.TB, db *pgtest.DB, sql string, change func(*rest.Config)) *stack {
	t.Helper()
	s := &stack{DB: db, t: t, log: &buffer{}}
	s.ExecAs("postgres", sql)
	logger := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.logger = logger
	s.users = s.login()
	cfg := rest.Config{
		Pool: s.users, Schemas: []string{"public", "personal"}, ExtraSearchPath: []string{"public", "extensions"},
		MaxRows: 1000, Logger: logger,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	s.cache, err = schema.New(schema.Config{Admin: s.Pool("supabase_admin"), Schemas: cfg.Schemas, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	s.reload()
	cfg.Schema = s.cache
	if s.server, err = rest.New(cfg); err != nil {
		t.Fatal(err)
	}
	keys, err := token.New(token.Config{
		Secret: token.DevJWTSecret, SigningKeys: token.DevSigningKeys,
		PublishableKeys: []sluice.Secret{token.DevPublishableKey}, SecretKeys: []sluice.Secret{token.DevSecretKey},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.gateway, err = gateway.New(gateway.Config{Logger: logger, Keys: keys, REST: s.server})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reload makes the cache read the catalog again.
func (s *stack) reload() {
	s.t.Helper()
	seen := uint64(0)
	if snap := s.cache.Snapshot(); snap != nil {
		seen = snap.Version
	}
	if err := s.cache.Reload(context.Background(), seen); err != nil {
		s.t.Fatal(err)
	}
}

// sign makes a token of the stack's secret.
func sign(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(token.DevJWTSecret))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// bearer is the Authorization header of somebody.
func bearer(t testing.TB, who string) string {
	t.Helper()
	claims := jwt.MapClaims{"role": "authenticated", "exp": 4102444800}
	switch who {
	case "alice":
		claims["sub"] = alice
	case "bob":
		claims["sub"] = bob
	case "service":
		claims["role"] = "service_role"
	default:
		claims["role"] = who
	}
	return "Bearer " + sign(t, claims)
}

// request makes a request from its first line, headers as pairs, and body.
// The header As is the Authorization of somebody.
func (s *stack) request(line, body string, header ...string) *http.Request {
	s.t.Helper()
	method, target, ok := strings.Cut(line, " ")
	if !ok {
		s.t.Fatalf("request %q", line)
	}
	r := httptest.NewRequest(method, "/rest/v1"+escape(target), strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "As" {
			r.Header.Set("Authorization", bearer(s.t, header[i+1]))
			continue
		}
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// escape lets cases be written as people read them: what HTTP does not take in
// a request line is percent-encoded, the rest stays as it is.
func escape(target string) string {
	var b strings.Builder
	for _, c := range []byte(target) {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '#' || c == '<' || c == '>' || c == '\\' || c == '^' || c == '`' || c == '{' || c == '|' || c == '}' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// do serves one request through the gateway.
func (s *stack) do(line, body string, header ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.gateway.ServeHTTP(w, s.request(line, body, header...))
	return w
}

// want serves one request and compares the status, Content-Range (if any) and
// body, joined by blanks, with want.
func (s *stack) want(want, line, body string, header ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	w := s.do(line, body, header...)
	got := strings.Join(strings.Fields(fmt.Sprintf("%d %s %s", w.Code, w.Header().Get("Content-Range"), w.Body.String())), " ")
	if got != want {
		s.t.Errorf("%s %s\n got %s\nwant %s", line, body, got, want)
	}
	return w
}

// run serves the requests of testdata/NAME.txtar one after another and compares
// the answers. A request is a file named by its first line, with headers, an
// empty line and a body; the file "response" behind it is the answer, and a file
// "sql" the statement with its parameters, when withSQL is set.
func (s *stack) run(name string, withSQL bool) {
	s.t.Helper()
	path := filepath.Join("testdata", name+".txtar")
	archive, err := txtar.ParseFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	out := &txtar.Archive{Comment: archive.Comment}
	for _, f := range archive.Files {
		if f.Name == "response" || f.Name == "sql" {
			continue
		}
		header, body := readCase(string(f.Data))
		out.Files = append(out.Files, f)
		if withSQL {
			r := s.request(f.Name, body, header...)
			r.URL.Path, r.URL.RawPath = strings.TrimPrefix(r.URL.Path, "/rest/v1"), strings.TrimPrefix(r.URL.RawPath, "/rest/v1")
			out.Files = append(out.Files, txtar.File{Name: "sql", Data: []byte(readable.Replace(s.server.Explain(r)))})
		}
		w := s.do(f.Name, body, header...)
		out.Files = append(out.Files, txtar.File{Name: "response", Data: []byte(s.show(f.Name, w))})
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(out), 0o644); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(out))); diff != "" {
		s.t.Errorf("%s (run with -update to accept):\n%s", path, diff)
	}
}

// readable breaks a statement into lines where its parts begin.
var readable = strings.NewReplacer(
	") SELECT ", ")\nSELECT ", "), \"", "),\n\"", " FROM ", "\n  FROM ", " WHERE ", "\n WHERE ", " LEFT JOIN ", "\n  LEFT JOIN ", " INNER JOIN ", "\n  INNER JOIN ",
	" CROSS JOIN ", "\n  CROSS JOIN ", " ORDER BY ", "\n ORDER BY ", " GROUP BY ", "\n GROUP BY ", " RETURNING ", "\n RETURNING ", " ON CONFLICT ", "\n    ON CONFLICT ",
)

func readCase(text string) (header []string, body string) {
	head, body, _ := strings.Cut(text, "\n\n")
	if strings.HasPrefix(text, "\n") {
		head, body = "", text[1:]
	}
	for line := range strings.Lines(head) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if k != "" {
			header = append(header, k, v)
		}
	}
	return header, strings.TrimSuffix(body, "\n")
}

// always are headers that every answer of a kind has; show checks them and
// leaves them out.
var always = []string{
	"Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "X-Request-Id", "Content-Length", "Content-Profile", "Content-Location",
	"Vary", "Proxy-Status", "Server",
}

// show renders an answer: status, headers that are not the same on all, body.
func (s *stack) show(line string, w *httptest.ResponseRecorder) string {
	var b strings.Builder
	method, _, _ := strings.Cut(line, " ")
	body := w.Body.String()
	fmt.Fprintf(&b, "%d\n", w.Code)
	var names []string
	for k := range w.Header() {
		if !slices.Contains(always, k) {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	for _, k := range names {
		v := strings.Join(w.Header()[k], " | ")
		if k == "Content-Type" && v == "application/json; charset=utf-8" && body != "" {
			continue
		}
		fmt.Fprintf(&b, "%s: %s\n", k, v)
	}
	if body != "" {
		fmt.Fprintf(&b, "\n%s\n", body)
		if w.Header().Get("Content-Type") == "" {
			s.t.Errorf("%s: a body without Content-Type", line)
		}
	}
	switch n := w.Header().Get("Content-Length"); {
	case method == "HEAD" || w.Code == http.StatusNoContent:
		if n != "" || body != "" {
			s.t.Errorf("%s: Content-Length %q, body %q", line, n, body)
		}
	case n != "" && n != strconv.Itoa(len(body)):
		s.t.Errorf("%s: Content-Length %s of %d bytes", line, n, len(body))
	}
	if strings.HasPrefix(body, `{"code":`) && !strings.HasPrefix(w.Header().Get("Proxy-Status"), "PostgREST; error=") {
		s.t.Errorf("%s: an error without Proxy-Status", line)
	}
	return b.String()
}

// drain reads a real answer.
func drain(t testing.TB, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// login opens the pool that REST gets.
func (s *stack) login() *pg.Pool {
	s.t.Helper()
	p, err := pg.Open(context.Background(), pg.Config{URL: s.URL("authenticator"), Logger: slog.New(slog.DiscardHandler), MaxConns: benchConns})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(p.Close)
	return p
}

// noPool and discard are for a Server that runs nothing.
var (
	noPool  = new(pg.Pool)
	discard = slog.New(slog.DiscardHandler)
)
