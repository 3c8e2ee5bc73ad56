package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/internal/standin"
	"github.com/sluice-dev/sluice/token"
)

// faults are the scripts that plant one fault each.
const faults = "../../test/faults"

// planted is what a fault's script has at hand.
type planted struct {
	ts    *testscript.TestScript
	stack *standin.Stack

	mu    sync.Mutex
	pages map[string]http.Header

	code   int
	report doctor.Report
}

// TestFaults runs test/faults/*.txtar; README.md there tells the commands. The
// doctor has five seconds for each visit.
func TestFaults(t *testing.T) {
	env := sharedStack(t)
	testscript.RunT(inOrder{t}, testscript.Params{
		Files:       scripts(t, faults+"/*.txtar"),
		WorkdirRoot: room(t),
		Condition: func(cond string) (bool, error) {
			if cond == "lan" {
				return lan() != "", nil
			}
			return condition(cond)
		},
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, env...)
			f := &planted{stack: &standin.Stack{Routes: map[string]http.HandlerFunc{}}, pages: map[string]http.Header{}}
			e.Values[plantedKey{}] = f
			if err := f.servePages(e); err != nil {
				return err
			}
			free, err := freePorts(1)
			if err != nil {
				return err
			}
			e.Setenv("FREE", strconv.Itoa(free[0]))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"answer": with((*planted).answer), "reply": with((*planted).reply), "gateway": with((*planted).gateway), "policy": with((*planted).policy),
			"doctor": with((*planted).doctor), "first": with((*planted).first), "says": with((*planted).says), "healthy": with((*planted).healthy),
			"sql": with((*planted).sql), "echoes": with((*planted).echoes), "clock": with((*planted).clock), "listen": with((*planted).listen),
			"proxy": with((*planted).proxy), "cookies": with((*planted).cookies),
		},
	})
}

// inOrder runs scripts one after the other: they share a database.
type inOrder struct{ *testing.T }

func (inOrder) Parallel() {}

func (t inOrder) Run(name string, fn func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { fn(inOrder{t}) })
}

func (inOrder) Verbose() bool { return testing.Verbose() }

type plantedKey struct{}

func with(fn func(f *planted, args []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("no command of a fault can be negated")
		}
		f := ts.Value(plantedKey{}).(*planted)
		f.ts = ts
		fn(f, args)
	}
}

func (f *planted) need(args []string, least, most int, usage string) {
	if len(args) < least || len(args) > most {
		f.ts.Fatalf("usage: %s", usage)
	}
}

// holds reports whether a request is what a condition says: * for every one,
// NAME=GLOB or NAME!=GLOB for a parameter, or for header Authorization or Cookie.
func holds(cond string, r *http.Request) bool {
	name, glob, _ := strings.Cut(cond, "=")
	name, not := strings.CutSuffix(name, "!")
	value := r.URL.Query().Get(name)
	if name == "Authorization" || name == "Cookie" {
		value = r.Header.Get(name)
	}
	match, _ := path.Match(glob, value)
	return cond == "*" || match != not
}

// answer PATH CONDITION STATUS [BODY]
func (f *planted) answer(args []string) {
	f.need(args, 3, 4, "answer PATH CONDITION STATUS [BODY]")
	status, err := strconv.Atoi(args[2])
	f.ts.Check(err)
	give := func(w http.ResponseWriter) {
		body := strings.Join(args[3:], "")
		if json.Valid([]byte(body)) {
			standin.WriteJSON(w, status, body)
			return
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
	if args[0] == "/realtime/v1/websocket" {
		f.stack.Admit = func(w http.ResponseWriter, r *http.Request) bool {
			if !holds(args[1], r) {
				return false
			}
			give(w)
			return true
		}
		return
	}
	f.stack.Routes[args[0]] = func(w http.ResponseWriter, r *http.Request) {
		switch {
		case holds(args[1], r):
			give(w)
		case args[0] == "/realtime/v1/api/broadcast":
			f.stack.HTTPBroadcast(w, r)
		default:
			standin.WriteJSON(w, 404, `{"code":"PGRST205","message":"no such table"}`)
		}
	}
}

// reply HOW EVENT TEXT [BODY]
func (f *planted) reply(args []string) {
	f.need(args, 3, 4, "reply ok|error|nothing|other-ref|system-error|mutes|twice-closes EVENT TEXT [BODY]")
	body := strings.Join(args[3:], "")
	muted := map[string]bool{}
	f.stack.Receive = func(c *standin.Conn, m standin.Message) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if muted[m.Topic] {
			return true
		}
		if m.Event != args[1] || !strings.Contains(string(m.Payload), args[2]) {
			return false
		}
		switch args[0] {
		case "ok", "error":
			c.Reply(m, args[0], body)
		case "nothing":
		case "other-ref":
			m.Ref = 1
			c.Reply(m, "ok", `{"postgres_changes":[]}`)
		case "system-error":
			echo, _ := json.Marshal(map[string]any{"postgres_changes": standin.Bindings(m)})
			c.Reply(m, "ok", string(echo))
			c.Send(m.Ref, nil, m.Topic, "system", body)
		case "mutes":
			c.Send(m.JoinRef, nil, m.Topic, "system", body)
			muted[m.Topic] = true
		case "twice-closes":
			_, again := c.Topics[m.Topic]
			c.Topics[m.Topic] = m.Ref
			c.Reply(m, "ok", `{"postgres_changes":[]}`)
			if again {
				c.Send(m.Ref, m.Ref, m.Topic, "phx_close", "{}")
			}
		}
		return true
	}
}

// gateway starts the stand-in: $URL.
func (f *planted) gateway(args []string) {
	f.need(args, 0, 0, "gateway")
	f.stack.Start()
	f.ts.Defer(f.stack.Close)
	f.ts.Setenv("URL", f.stack.URL)
	f.ts.Setenv("HOST", strings.TrimPrefix(f.stack.URL, "http://"))
}

// proxy stands before Sluice and drops what asks for an upgrade: $URL.
func (f *planted) proxy(args []string) {
	f.need(args, 0, 0, "proxy")
	to, err := url.Parse(f.ts.Getenv("SLUICE"))
	f.ts.Check(err)
	p := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Header.Del("Upgrade")
		r.Out.Header.Del("Connection")
	}}
	s := httptest.NewServer(p)
	f.ts.Defer(s.Close)
	f.ts.Setenv("URL", s.URL)
}

// echoes makes the gateway repeat what it gets in everything that it says.
func (f *planted) echoes(args []string) {
	f.need(args, 0, 0, "echoes")
	say := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		text, _ := json.Marshal(map[string]string{"message": "no: " + r.URL.String() + string(body) + fmt.Sprint(r.Header)})
		w.Header().Set("Location", r.URL.String())
		standin.WriteJSON(w, http.StatusUnauthorized, string(text))
	}
	for _, path := range []string{"/auth/v1/token", "/rest/v1/", "/realtime/v1/api/"} {
		f.stack.Routes[path] = say
	}
	f.stack.Receive = func(c *standin.Conn, m standin.Message) bool {
		reason, _ := json.Marshal(map[string]string{"reason": "no: " + string(m.Payload)})
		c.Reply(m, "error", string(reason))
		return true
	}
}

// clock HOURS sets the gateway's clock off.
func (f *planted) clock(args []string) {
	f.need(args, 1, 1, "clock DURATION")
	off, err := time.ParseDuration(args[0])
	f.ts.Check(err)
	f.stack.Routes["/auth/v1/health"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
		standin.WriteJSON(w, 200, `{"name":"GoTrue","version":"v2.180.0"}`)
	}
}

// listen BYTES accepts connections, and greets them with bytes that are no HTTP.
func (f *planted) listen(args []string) {
	f.need(args, 1, 1, "listen GREETING")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	f.ts.Check(err)
	f.ts.Defer(func() { l.Close() })
	f.ts.Setenv("URL", "http://"+l.Addr().String())
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(args[0]))
			c.Close()
		}
	}()
}

// policy PATH CSP
func (f *planted) policy(args []string) {
	f.need(args, 2, 2, "policy PATH CSP")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pages[args[0]] = http.Header{"Content-Security-Policy": {args[1]}}
}

// cookies PATH BYTES
func (f *planted) cookies(args []string) {
	f.need(args, 2, 2, "cookies PATH BYTES")
	n, err := strconv.Atoi(args[1])
	f.ts.Check(err)
	value := strings.Repeat("s", n/2)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pages[args[0]] = http.Header{"Set-Cookie": {"sb-127-auth-token.0=" + value + "; Path=/", "sb-127-auth-token.1=" + value + "; Path=/"}}
}

// servePages serves the app's pages: $PAGE here, $TLS_PAGE by https, and $LAN_PAGE
// by an address of the network, where there is one.
func (f *planted) servePages(e *testscript.Env) error {
	plain, tls := httptest.NewServer(http.HandlerFunc(f.page)), httptest.NewTLSServer(http.HandlerFunc(f.page))
	e.Defer(plain.Close)
	e.Defer(tls.Close)
	e.Setenv("PAGE", plain.URL)
	e.Setenv("TLS_PAGE", tls.URL)
	roots := filepath.Join(e.WorkDir, "roots.pem")
	e.Setenv("SSL_CERT_FILE", roots)
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw}), 0o644); err != nil {
		return err
	}
	if address := lan(); address != "" {
		l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			return err
		}
		s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(f.page)}}
		s.Start()
		e.Defer(s.Close)
		e.Setenv("LAN_PAGE", s.URL)
	}
	return nil
}

// lan is an address of this machine in a network, if it is in one.
func lan() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}

func (f *planted) page(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, values := range f.pages[r.URL.Path] {
		w.Header()[name] = values
	}
	fmt.Fprint(w, "<!doctype html><title>chat</title>")
}

// enough is the time that the doctor has for a fault, with its own defaults.
const enough = 5 * time.Second

// doctor ARGS...
func (f *planted) doctor(args []string) {
	args = append([]string{"doctor", "-o", "json", "--workdir", f.ts.Getenv("WORK")}, args...)
	f.code = 0
	start := time.Now()
	var exit *exec.ExitError
	if err := f.ts.Exec("sluice", args...); errors.As(err, &exit) {
		f.code = exit.ExitCode()
	} else {
		f.ts.Check(err)
	}
	if took := time.Since(start); took > enough {
		f.ts.Fatalf("the doctor took %s", took.Round(time.Millisecond))
	}
	f.report = doctor.Report{}
	if err := json.Unmarshal([]byte(f.ts.ReadFile("stdout")), &f.report); err != nil {
		f.ts.Fatalf("the report: %v", err)
	}
}

// worst is the finding that a reader is led to.
func (f *planted) worst() doctor.Finding {
	if first := f.report.First(); first != nil {
		return *first
	}
	for _, x := range f.report.Findings {
		if x.Status == doctor.Warn {
			return x
		}
	}
	f.ts.Fatalf("the doctor finds nothing")
	return doctor.Finding{}
}

// first RULE CODE HOP CONFIDENCE
func (f *planted) first(args []string) {
	f.need(args, 4, 4, "first RULE CODE HOP CONFIDENCE")
	x := f.worst()
	got := []string{strconv.Itoa(x.Rule), string(x.Code), string(x.Hop), string(x.Confidence)}
	if strings.Join(got, " ") != strings.Join(args, " ") {
		f.ts.Fatalf("the doctor names first: rule %s, want rule %s: %s (%s)", strings.Join(got, " "), strings.Join(args, " "), x.Text, x.Evidence)
	}
	if want := map[bool]int{true: 1, false: 0}[x.Status == doctor.Fail]; f.code != want {
		f.ts.Fatalf("exit code %d, want %d", f.code, want)
	}
	for _, x := range f.report.Findings {
		if bad := x.Status == doctor.Fail || x.Status == doctor.Warn; bad && (x.Remedy == "" || x.Evidence == "" || x.Confidence == "" || x.Code == "") {
			f.ts.Fatalf("a finding without code, confidence, evidence or remedy: %+v", x)
		}
	}
}

// says TEXT...
func (f *planted) says(args []string) {
	x := f.worst()
	all := strings.Join([]string{x.Text, x.Evidence, x.Remedy, x.Fix}, "\n")
	for _, text := range args {
		if !strings.Contains(all, text) {
			f.ts.Fatalf("not said: %q in\n%s", text, all)
		}
	}
}

// healthy: nothing fails, nothing warns, and no hop that was asked for is skipped.
func (f *planted) healthy(args []string) {
	for _, x := range f.report.Findings {
		if x.Status == doctor.Fail || x.Status == doctor.Warn || strings.HasPrefix(x.Text, "not reached") {
			f.ts.Fatalf("%s %s: %s (%s)", x.Status, x.Hop, x.Text, x.Evidence)
		}
	}
	for _, hop := range args {
		passed := false
		for _, x := range f.report.Findings {
			passed = passed || string(x.Hop) == hop && x.Status == doctor.OK
		}
		if !passed {
			f.ts.Fatalf("hop %q was not passed", hop)
		}
	}
	if f.code != 0 {
		f.ts.Fatalf("exit code %d", f.code)
	}
}

// sql STATEMENTS as the superuser of $SLUICE's database.
func (f *planted) sql(args []string) {
	f.need(args, 1, 1, "sql STATEMENTS")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, strings.Replace(f.ts.Getenv("DB_URL"), "//postgres:", "//supabase_admin:", 1))
	f.ts.Check(err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, args[0])
	f.ts.Check(err)
}

// sharedStack starts the Sluice that faults of a database are planted in, and
// returns its addresses as environment.
func sharedStack(t *testing.T) []string {
	t.Helper()
	if has, err := condition("postgres"); err != nil || !has {
		t.Skip("no PostgreSQL: ", err)
	}
	dir := room(t)
	ports, err := freePorts(4)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "supabase", "migrations"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("project_id = \"faults\"\n[api]\nport = %d\n[db]\nport = %d\n[inbucket]\nport = %d\n[studio]\nport = %d\n", ports[0], ports[1], ports[2], ports[3])
	for name, text := range map[string]string{"config.toml": config, "migrations/20260101000000_chat.sql": faultsSchema} {
		if err := os.WriteFile(filepath.Join(dir, "supabase", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("sluice", "start", "--detach", "--workdir", dir).CombinedOutput(); err != nil {
		t.Fatalf("start: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("sluice", "stop", "--no-backup", "--workdir", dir).CombinedOutput(); err != nil {
			t.Errorf("stop: %v\n%s", err, out)
		}
	})
	return []string{
		"SLUICE=http://127.0.0.1:" + strconv.Itoa(ports[0]),
		"DB_PORT=" + strconv.Itoa(ports[1]),
		"DB_URL=postgresql://postgres:postgres@127.0.0.1:" + strconv.Itoa(ports[1]) + "/postgres",
		"SLUICE_WS=ws://127.0.0.1:" + strconv.Itoa(ports[0]),
		"ES256_TOKEN=" + forged(`{"alg":"ES256","kid":"new-key"}`, `{"role":"authenticated","exp":4102444800}`),
		"SECRET_KEY=" + token.DevSecretKey,
		"ANON_JWT=" + token.LegacyKey(token.DevJWTSecret, "anon"),
		"OTHER_JWT=" + token.LegacyKey("another-secret-of-another-project-altogether", "anon"),
		"USER_TOKEN=" + faultsToken(t, time.Hour), "OLD_TOKEN=" + faultsToken(t, -time.Hour),
	}
}

// faultsSchema is a chat in which nothing is wrong.
const faultsSchema = `
create table public.messages (id bigint generated always as identity primary key, user_id uuid not null default auth.uid(), body text not null);
alter table public.messages enable row level security;
create policy "read" on public.messages for select to anon, authenticated using (true);
create policy "write" on public.messages for insert to authenticated with check (user_id = auth.uid());
alter publication supabase_realtime add table public.messages;
create policy "join" on realtime.messages for select to anon, authenticated using (realtime.topic() like 'room-%');
`

// forged is a JWT that nobody signed.
func forged(header, claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(header)) + "." + enc([]byte(claims)) + ".c2ln"
}

func faultsToken(t *testing.T, d time.Duration) string {
	t.Helper()
	ring, err := token.New(token.Config{Secret: token.DevJWTSecret})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := ring.Sign(map[string]any{"role": "authenticated", "sub": "5ec4ed11-c1a0-4e07-a5ff-5d7ad0d9b7a1", "exp": time.Now().Add(d).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// Every rule has a script, by docs/doctor.md's table and by the scripts' names.
func TestEveryRuleIsPlanted(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	planted := map[string]bool{}
	first := regexp.MustCompile(`(?m)^first (\d+) `)
	for _, file := range scripts(t, faults+"/*.txtar") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		number, _, _ := strings.Cut(filepath.Base(file), "-")
		for _, m := range first.FindAllStringSubmatch(string(text), -1) {
			planted[m[1]] = true
			if n, err := strconv.Atoi(number); err == nil && strconv.Itoa(n) != m[1] {
				t.Errorf("%s plants rule %s", filepath.Base(file), m[1])
			}
		}
		if !strings.HasPrefix(string(text), "# ") {
			t.Errorf("%s does not begin with what a user sees", filepath.Base(file))
		}
	}
	rules := regexp.MustCompile(`\| (\d+) \| `).FindAllStringSubmatch(string(doc), -1)
	if len(rules) < 32 {
		t.Fatalf("docs/doctor.md has %d rules", len(rules))
	}
	for _, r := range rules {
		if !planted[r[1]] {
			t.Errorf("no script plants rule %s", r[1])
		}
	}
}
