package doctor_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/internal/standin"
)

// page serves a document with a policy.
func page(t *testing.T, header, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set("Content-Security-Policy", header)
		}
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><html><head>"+body+"</head></html>")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// spec: doctor:13
func TestPolicyBlocksSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ws := "ws" + strings.TrimPrefix(w.URL, "http")
	// The usual mistake, and what the seed had: REST is listed, the socket is not.
	r := visit(t, doctor.Config{URL: w.URL, Page: page(t, "default-src 'self'; connect-src 'self' "+w.URL, "")})
	wantFirst(t, r, doctor.HopPage, doctor.CodeCSP, 13, "blocks the socket", "Add "+ws+" to connect-src", "connect-src 'self' "+w.URL)

	r = visit(t, doctor.Config{URL: w.URL, Page: page(t, "", `<meta content="default-src 'self'" http-equiv='Content-Security-Policy'>`)})
	wantFirst(t, r, doctor.HopPage, doctor.CodeCSP, 13, "default-src 'self'", ws)

	// The other name of this machine.
	u, _ := url.Parse(w.URL)
	listed := "connect-src 'self' http://localhost:" + u.Port() + " ws://localhost:" + u.Port()
	r = visit(t, doctor.Config{URL: w.URL, Page: page(t, listed, "")})
	wantFirst(t, r, doctor.HopPage, doctor.CodeCSP, 13, "The policy lists localhost and the project URL says 127.0.0.1")

	r = visit(t, doctor.Config{URL: w.URL, Page: page(t, "connect-src 'self' "+w.URL+" "+ws, "")})
	if f := at(t, r, doctor.HopPage); f.Status != doctor.OK {
		t.Errorf("a policy that lists both: %+v", f)
	}
	r = visit(t, doctor.Config{URL: w.URL, Page: page(t, "", "")})
	if f := at(t, r, doctor.HopPage); f.Status != doctor.OK || !strings.Contains(f.Text, "no Content-Security-Policy") {
		t.Errorf("no policy: %+v", f)
	}
}

// TestCheckPage: the page alone, without a key or a project that runs.
func TestCheckPage(t *testing.T) {
	t.Parallel()
	of := func(cfg doctor.Config) *doctor.Report {
		t.Helper()
		r, err := doctor.CheckPage(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const project = "https://abc.supabase.co"
	r := of(doctor.Config{URL: project, Page: page(t, "connect-src 'self' "+project, "")})
	wantFirst(t, r, doctor.HopPage, doctor.CodeCSP, 13, "blocks the socket")
	r = of(doctor.Config{URL: project, Page: page(t, "connect-src 'self' "+project+" wss://abc.supabase.co", "")})
	if r.First() != nil || len(r.Findings) != 2 {
		t.Errorf("a policy that lists both: %s", show(r))
	}
	if _, err := doctor.CheckPage(t.Context(), doctor.Config{URL: project, Page: "nowhere"}); !errors.Is(err, sluice.ErrInvalid) {
		t.Errorf("a page without an address: %v", err)
	}
}

// spec: doctor:22
func TestLoopbackFromAnotherDevice(t *testing.T) {
	t.Parallel()
	got := doctor.JudgePage("http://192.168.1.20:3000/chat", "http://127.0.0.1:54321", "")
	wantFinding(t, got[0], doctor.CodeLoopbackHost, 22, "the device itself", "http://192.168.1.20:54321", "10.0.2.2", "external_url")
	if got := doctor.JudgePage("http://localhost:3000", "http://127.0.0.1:54321", ""); got[0].Status != doctor.OK {
		t.Errorf("a page on this machine: %+v", got)
	}
}

// spec: doctor:30
func TestMixedContent(t *testing.T) {
	t.Parallel()
	got := doctor.JudgePage("https://localhost:3000", "http://localhost:54321", "")
	wantFinding(t, got[0], doctor.CodeMixedContent, 30, "Safari", "[api.tls]")
	if got[0].Status != doctor.Warn {
		t.Errorf("status %s", got[0].Status)
	}
	got = doctor.JudgePage("https://app.example.com", "http://api.example.com", "")
	wantFinding(t, got[0], doctor.CodeMixedContent, 0, "mixed content", "https://")
	if got[0].Status != doctor.Fail {
		t.Errorf("status %s", got[0].Status)
	}
}

// spec: doctor:31
func TestUpgradeInsecureRequests(t *testing.T) {
	t.Parallel()
	got := doctor.JudgePage("http://localhost:3000", "http://localhost:54321", "upgrade-insecure-requests")
	wantFinding(t, got[0], doctor.CodeUpgradeInsecure, 31, "Safari", "in development")
	if got[0].Status != doctor.Warn {
		t.Errorf("status %s", got[0].Status)
	}
	if got := doctor.JudgePage("http://localhost:3000", "https://localhost:54321", "upgrade-insecure-requests"); got[0].Status != doctor.OK {
		t.Errorf("with TLS: %+v", got)
	}
}

// TestPolicyTable is the table of what engines were measured to do (gateway
// specification E.3). Columns: a socket to the page's own origin, fetch
// http://127.0.0.1:54321, its socket, the socket of localhost:54321, and
// wss://abc.supabase.co.
func TestPolicyTable(t *testing.T) {
	t.Parallel()
	targets := []string{
		"ws://localhost:3000/hmr", "http://127.0.0.1:54321/rest/v1/", "ws://127.0.0.1:54321/realtime/v1/websocket",
		"ws://localhost:54321/realtime/v1/websocket", "wss://abc.supabase.co/realtime/v1/websocket",
	}
	for sources, want := range map[string]string{
		"":                              "✓✓✓✓✓",
		"'self'":                        "✓BBBB",
		"'none'":                        "BBBBB",
		"'self' http://127.0.0.1:54321": "✓✓BBB",
		"'self' ws://127.0.0.1:54321":   "✓B✓BB",
		"http://127.0.0.1:54321 ws://127.0.0.1:54321": "B✓✓BB",
		"127.0.0.1:54321":                    "B✓BBB",
		"http://127.0.0.1:*":                 "B✓BBB",
		"http://127.0.0.1":                   "BBBBB",
		"http:":                              "B✓BBB",
		"https:":                             "BBBBB",
		"ws:":                                "✓B✓✓✓",
		"wss:":                               "BBBB✓",
		"*":                                  "✓✓✓✓✓",
		"https://abc.supabase.co":            "BBBBB",
		"https://*.supabase.co":              "BBBBB",
		"abc.supabase.co":                    "BBBBB",
		"*.supabase.co":                      "BBBBB",
		"wss://abc.supabase.co":              "BBBB✓",
		"wss://abc.supabase.co:443":          "BBBB✓",
		"wss://*.supabase.co":                "BBBB✓",
		"ws://abc.supabase.co":               "BBBB✓",
		"wss://abc.supabase.co/realtime/v1":  "BBBBB",
		"wss://abc.supabase.co/realtime/v1/": "BBBB✓",
		"ws://*.0.0.1:54321":                 "BBBBB",
		"WS://LOCALHOST:54321":               "BBB✓B",
	} {
		var got strings.Builder
		for _, target := range targets {
			if doctor.Allows(sources, "http://localhost:3000", target, "modern") {
				got.WriteString("✓")
			} else {
				got.WriteString("B")
			}
		}
		if got.String() != want {
			t.Errorf("connect-src %s: got %s, want %s", sources, got.String(), want)
		}
	}
	for _, test := range []struct {
		sources, page, target, engine string
		want                          bool
	}{
		{"'self' ws://127.0.0.1:54321", "http://localhost:3000", "http://127.0.0.1:54321/rest/v1/", "webkit", true},
		{"ws:", "http://localhost:3000", "http://127.0.0.1:54321/rest/v1/", "webkit", true},
		{"127.0.0.1:54321", "https://localhost:3443", "http://127.0.0.1:54321/rest/v1/", "modern", false},
		{"wss:", "https://localhost:3443", "wss://localhost:3443/hmr", "modern", true},
		{"'self'", "http://localhost:3000", "ws://localhost:3000/hmr", "old safari", false},
		{"'self'", "http://localhost:3000", "http://localhost:3000/api", "old safari", true},
	} {
		if got := doctor.Allows(test.sources, test.page, test.target, test.engine); got != test.want {
			t.Errorf("%+v: got %t", test, got)
		}
	}
}

func TestConnectSources(t *testing.T) {
	t.Parallel()
	for project, want := range map[string][]string{
		"http://127.0.0.1:54321":  {"http://127.0.0.1:54321", "ws://127.0.0.1:54321", "http://localhost:54321", "ws://localhost:54321"},
		"https://abc.supabase.co": {"https://abc.supabase.co", "wss://abc.supabase.co"},
	} {
		u, _ := url.Parse(project)
		if diff := cmp.Diff(want, doctor.ConnectSources(u)); diff != "" {
			t.Error(diff)
		}
	}
}

// FuzzPolicy: a page's header is anybody's text.
func FuzzPolicy(f *testing.F) {
	f.Add("default-src 'self'; connect-src 'self' ws://127.0.0.1:54321, connect-src *", "http://localhost:3000")
	f.Add("connect-src [::1]:3 ://: *: *.x:*/ '", "https://[::1]")
	f.Fuzz(func(t *testing.T, policy, page string) {
		if _, err := url.Parse(page); err != nil {
			return
		}
		doctor.JudgePage(page, "http://127.0.0.1:54321", policy)
	})
}

// folder makes an app's folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEnvFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u, _ := url.Parse(w.URL)
	const other = "sb_publishable_AAAAAAAAAAAAAAAAAAAAAA_BBBBBBBB"
	r := visit(t, doctor.Config{URL: w.URL, Project: folder(t, map[string]string{
		".env":       "NEXT_PUBLIC_SUPABASE_ANON_KEY=" + publishable + "\n",
		".env.local": "# the app's\nexport NEXT_PUBLIC_SUPABASE_ANON_KEY=\"" + other + "\" # wins\nNEXT_PUBLIC_SUPABASE_URL='" + w.URL + "'\n",
	})})
	wantFirst(t, r, doctor.HopEnv, doctor.CodeEnvDiffers, 0, "NEXT_PUBLIC_SUPABASE_ANON_KEY in .env.local", "sb_publishable_AAAA…", "restart the app's dev server")
	if strings.Contains(show(r), other) {
		t.Errorf("the report holds a key:\n%s", show(r))
	}

	// A legacy key beside a publishable one is compared with the stack's.
	r = visit(t, doctor.Config{URL: w.URL, Project: folder(t, map[string]string{".env": "SUPABASE_ANON_KEY=" + otherAnon + "\n"})})
	wantFirst(t, r, doctor.HopEnv, doctor.CodeEnvDiffers, 0, "SUPABASE_ANON_KEY in .env")

	r = visit(t, doctor.Config{URL: w.URL, Project: folder(t, map[string]string{".env": "VITE_SUPABASE_URL=http://localhost:" + u.Port() + "\n"})})
	f := at(t, r, doctor.HopEnv)
	wantFinding(t, f, doctor.CodeEnvDiffers, 0, "two hosts")
	if f.Status != doctor.Warn {
		t.Errorf("status %s", f.Status)
	}
	r = visit(t, doctor.Config{URL: w.URL, Project: folder(t, map[string]string{".env": "SUPABASE_URL=http://127.0.0.1:1\n"})})
	wantFirst(t, r, doctor.HopEnv, doctor.CodeEnvDiffers, 24, "http://127.0.0.1:1", w.URL)
	r = visit(t, doctor.Config{URL: w.URL, Project: folder(t, map[string]string{".env": "NEXT_PUBLIC_SUPABASE_KEY=sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz\n"})})
	wantFirst(t, r, doctor.HopEnv, doctor.CodeSecretInBrowser, 0, "make a new secret key")
	if strings.Contains(show(r), "N7UND0") {
		t.Errorf("the report holds a secret key:\n%s", show(r))
	}
	r = visit(t, doctor.Config{URL: w.URL, Project: folder(t, map[string]string{
		".env": "SUPABASE_URL=" + w.URL + "\nSUPABASE_ANON_KEY=" + publishable + "\nSUPABASE_SERVICE_ROLE_KEY=" + forged(`{"alg":"HS256"}`, `{"role":"service_role"}`) + "\nMULTI=\"a\nb\"\n",
	})})
	if f := at(t, r, doctor.HopEnv); f.Status != doctor.OK {
		t.Errorf("files that agree: %+v", f)
	}
}

func FuzzEnv(f *testing.F) {
	f.Add("export SUPABASE_URL=\"http://127.0.0.1:54321\" # x\nSUPABASE_KEY='a'\n=\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range doctor.ReadEnv(text) {
			if !strings.Contains(strings.ToUpper(s[0]), "SUPABASE") || s[1] == "" || strings.Contains(s[1], "\n") {
				t.Errorf("read %q", s)
			}
		}
	})
}

func clientOf(t *testing.T, files map[string]string) []doctor.Finding {
	t.Helper()
	w := newWorld(t)
	var out []doctor.Finding
	for _, f := range visit(t, doctor.Config{URL: w.URL, Project: folder(t, files)}).Findings {
		if f.Hop == doctor.HopClient {
			out = append(out, f)
		}
	}
	return out
}

func byRule(t *testing.T, findings []doctor.Finding, rule int) doctor.Finding {
	t.Helper()
	for _, f := range findings {
		if f.Rule == rule {
			return f
		}
	}
	t.Fatalf("no finding of rule %d in %+v", rule, findings)
	return doctor.Finding{}
}

func lock(version string) string {
	return `{"packages":{"node_modules/@supabase/supabase-js":{"version":"` + version + `","resolved":"x"}}}`
}

// spec: doctor:15
func TestClientWithBadProtocol(t *testing.T) {
	t.Parallel()
	f := byRule(t, clientOf(t, map[string]string{"package-lock.json": lock("2.50.1")}), 15)
	wantFinding(t, f, doctor.CodeOldClient, 15, "undefined", "npm install @supabase/supabase-js@latest")
	for _, f := range clientOf(t, map[string]string{"package-lock.json": lock("2.51.0")}) {
		if f.Rule == 15 {
			t.Errorf("2.51.0: %+v", f)
		}
	}
}

// spec: doctor:29
func TestClientThatDowngrades(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"package-lock.json": lock("2.75.0"),
		"pnpm-lock.yaml":    "  '@supabase/supabase-js@2.75.0':\n    resolution: {}\n",
		"yarn.lock":         "\"@supabase/supabase-js@^2.0.0\":\n  version \"2.75.0\"\n",
		"bun.lock":          `"@supabase/supabase-js": ["@supabase/supabase-js@2.75.0", "", {}]`,
	} {
		f := byRule(t, clientOf(t, map[string]string{name: text}), 29)
		wantFinding(t, f, doctor.CodeOldClient, 29, name+" has 2.75.0", "goes on as anon", "accessToken option", "2.87.1")
	}
	got := clientOf(t, map[string]string{"package-lock.json": lock("2.119.1")})
	if len(got) != 1 || got[0].Status != doctor.OK {
		t.Errorf("the newest client: %+v", got)
	}
}

// spec: doctor:14
func TestNoNativeWebSocket(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		".nvmrc": "v20.11.1\n", ".node-version": "18\n", "package.json": `{"engines":{"node":">=20"}}`,
	} {
		f := byRule(t, clientOf(t, map[string]string{name: text}), 14)
		wantFinding(t, f, doctor.CodeNoWebSocket, 14, name, "Node 22", "transport: ws")
	}
	for _, f := range clientOf(t, map[string]string{".nvmrc": "22", "package.json": `{}`}) {
		if f.Rule == 14 {
			t.Errorf("Node 22: %+v", f)
		}
	}
}

// spec: doctor:10
func TestJoinWithoutToken(t *testing.T) {
	t.Parallel()
	f := byRule(t, clientOf(t, map[string]string{"package-lock.json": lock("2.98.0")}), 10)
	wantFinding(t, f, doctor.CodeOldClient, 10, "SUBSCRIBED, and no rows", "await supabase.realtime.setAuth()")
	// On the wire: the channel has no user, and a row that was written does not
	// arrive.
	w := newWorld(t, func(w *standin.Stack) {
		w.Routes["/rest/v1/messages"] = func(rw http.ResponseWriter, r *http.Request) {
			switch r.Method {
			case http.MethodPost:
				standin.WriteJSON(rw, 201, `[{"id":7,"body":"hi"}]`)
			default:
				standin.WriteJSON(rw, 200, `[{"id":7,"body":"hi"}]`)
			}
		}
	})
	r := visit(t, doctor.Config{URL: w.URL, Tables: []string{"messages"}, WriteProbe: []byte(`{"body":"hi"}`), Timeout: impatient})
	wantFirst(t, r, doctor.HopChange, doctor.CodeChangeLost, 10, "SUBSCRIBED as the API key (no user)", "before subscribe()")
}

func TestSecretsAreRedacted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *standin.Stack) { // a server that echoes everything
		w.Admit = func(rw http.ResponseWriter, r *http.Request) bool {
			standin.WriteJSON(rw, 401, `{"error":"no: `+r.URL.String()+` `+legacyAnon+` sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz postgres://u:longpassword@h/db \u001b[2J"}`)
			return true
		}
	})
	r := visit(t, doctor.Config{URL: w.URL, Password: "hunter2-hunter2", Email: "a@b.c", Token: sluice.Secret(userToken(t, 3600e9))})
	for _, secret := range []string{"N7UND0", "longpassword", publishable, legacyAnon, "\x1b"} {
		if strings.Contains(show(r), secret) {
			t.Errorf("the report holds %q:\n%s", secret, show(r))
		}
	}
}

// Each rule's number leads to a line of the documentation.
func TestRulesAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	for rule := 1; rule <= 32; rule++ {
		if !strings.Contains(string(text), fmt.Sprintf("| %d | ", rule)) {
			t.Errorf("docs/doctor.md does not name rule %d", rule)
		}
	}
}
