package chat_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice/examples/chat"
)

const key = "sb_publishable_test"

func get(t *testing.T, h http.Handler, method, target string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Result()
}

func newPage(t *testing.T, cfg chat.Config) http.Handler {
	t.Helper()
	h, err := chat.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	for api, want := range map[string]string{
		"http://127.0.0.1:54321":  "connect-src 'self' http://127.0.0.1:54321 ws://127.0.0.1:54321 http://localhost:54321 ws://localhost:54321",
		"http://localhost:54321/": "connect-src 'self' http://localhost:54321 ws://localhost:54321 http://127.0.0.1:54321 ws://127.0.0.1:54321",
		"http://localhost":        "connect-src 'self' http://localhost ws://localhost http://127.0.0.1 ws://127.0.0.1",
		"https://abc.example.com": "connect-src 'self' https://abc.example.com wss://abc.example.com",
		"https://[::1]:8443/base": "connect-src 'self' https://[::1]:8443 wss://[::1]:8443",
	} {
		h := newPage(t, chat.Config{APIURL: api, PublishableKey: key})
		for _, target := range []string{"/", "/app.js", "/config.json", "/nothing"} {
			policy := get(t, h, "GET", target).Header.Get("Content-Security-Policy")
			if !strings.Contains(policy, "; "+want+"; ") {
				t.Errorf("%s %s: policy %q lacks %q", api, target, policy, want)
			}
			if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") {
				t.Errorf("%s %s: policy %q is not strict", api, target, policy)
			}
		}
	}
}

func TestNewRefusesBadConfig(t *testing.T) {
	t.Parallel()
	for _, cfg := range []chat.Config{
		{},
		{APIURL: "http://127.0.0.1:54321"},
		{APIURL: "", PublishableKey: key},
		{APIURL: "127.0.0.1:54321", PublishableKey: key},
		{APIURL: "ws://127.0.0.1:54321", PublishableKey: key},
		{APIURL: "http://", PublishableKey: key},
		{APIURL: "http://a;script-src *", PublishableKey: key},
		{APIURL: "http://a,b", PublishableKey: key},
		{APIURL: "http://*", PublishableKey: key},
		{APIURL: "http://user:secret@127.0.0.1", PublishableKey: key},
		{APIURL: "http://%zz", PublishableKey: key},
	} {
		if _, err := chat.New(cfg); err == nil {
			t.Errorf("New(%+v) was accepted", cfg)
		}
	}
}

func FuzzAPIURL(f *testing.F) {
	f.Add("http://127.0.0.1:54321")
	f.Add("https://[::1]:1/a?b#c")
	f.Add("http://a\n;b")
	f.Fuzz(func(t *testing.T, api string) {
		h, err := chat.New(chat.Config{APIURL: api, PublishableKey: key})
		if err != nil {
			return
		}
		policy := get(t, h, "GET", "/").Header.Get("Content-Security-Policy")
		if strings.Count(policy, ";") != 8 || strings.ContainsAny(policy, "\r\n,*") {
			t.Errorf("APIURL %q breaks the policy: %q", api, policy)
		}
	})
}

func TestConfigJSON(t *testing.T) {
	t.Parallel()
	type answer struct {
		URL            string          `json:"url"`
		PublishableKey string          `json:"publishableKey"`
		DemoUsers      []chat.DemoUser `json:"demoUsers"`
	}
	for _, demo := range []bool{false, true} {
		h := newPage(t, chat.Config{APIURL: "http://127.0.0.1:54321/", PublishableKey: key, DemoUsers: demo})
		res := get(t, h, "GET", "/config.json")
		var got answer
		if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		want := answer{URL: "http://127.0.0.1:54321", PublishableKey: key, DemoUsers: []chat.DemoUser{}}
		if demo {
			want.DemoUsers = chat.DemoUsers
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("demo %v: -want +got\n%s", demo, diff)
		}
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	h := newPage(t, chat.Config{APIURL: "http://127.0.0.1:54321", PublishableKey: key})
	for _, tc := range []struct {
		method, target string
		status         int
		kind           string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/index.html", 200, "text/html; charset=utf-8"},
		{"GET", "/style.css", 200, "text/css; charset=utf-8"},
		{"GET", "/app.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/supabase.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/icon.svg", 200, "image/svg+xml"},
		{"GET", "/third-party-licences.txt", 200, "text/plain; charset=utf-8"},
		{"GET", "/missing", 404, "text/plain; charset=utf-8"},
		{"GET", "/../chat.go", 404, "text/plain; charset=utf-8"},
		{"GET", "/web", 404, "text/plain; charset=utf-8"},
		{"POST", "/", 405, "text/plain; charset=utf-8"},
		{"DELETE", "/app.js", 405, "text/plain; charset=utf-8"},
	} {
		res := get(t, h, tc.method, tc.target)
		if res.StatusCode != tc.status || res.Header.Get("Content-Type") != tc.kind {
			t.Errorf("%s %s: %d %q, want %d %q", tc.method, tc.target,
				res.StatusCode, res.Header.Get("Content-Type"), tc.status, tc.kind)
		}
	}
}

// TestNoForeignRequests holds the promise that the page loads nothing from
// elsewhere, and that the strict policy does not break it: no inline script,
// style or handler.
func TestNoForeignRequests(t *testing.T) {
	t.Parallel()
	foreign := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9-]+\.[a-z]{2,}`)
	inline := regexp.MustCompile(`(?i)<script(\s+type="module")?\s*>|<style|\sstyle=|\son[a-z]+=`)
	for _, name := range []string{"index.html", "style.css", "app.js", "room.js", "ui.js", "icon.svg"} {
		text, err := os.ReadFile(filepath.Join("web", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range foreign.FindAllString(strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", ""), -1) {
			t.Errorf("%s names %s", name, m)
		}
		if strings.HasSuffix(name, ".html") {
			for _, m := range inline.FindAllString(string(text), -1) {
				t.Errorf("%s has inline code or style: %q", name, m)
			}
		}
	}
}

// TestBundle compares the committed bundle with the hashes and exact versions
// that vendor/build.mjs recorded.
func TestBundle(t *testing.T) {
	t.Parallel()
	var record struct {
		Packages map[string]string `json:"packages"`
		SHA256   map[string]string `json:"sha256"`
	}
	readJSON(t, "vendor/bundle.json", &record)
	for _, name := range []string{"supabase.js", "third-party-licences.txt"} {
		text, err := os.ReadFile(filepath.Join("web", name))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(text)
		if got := hex.EncodeToString(sum[:]); got != record.SHA256[name] {
			t.Errorf("web/%s has sha256 %s, vendor/bundle.json says %s: run make vendor", name, got, record.SHA256[name])
		}
	}
	var manifest struct {
		DevDependencies map[string]string `json:"devDependencies"`
	}
	readJSON(t, "vendor/package.json", &manifest)
	for _, name := range []string{"@supabase/supabase-js", "@supabase/ssr"} {
		if record.Packages[name] == "" || record.Packages[name] != manifest.DevDependencies[name] {
			t.Errorf("%s: bundle has %q, package.json asks for %q: run make vendor", name, record.Packages[name], manifest.DevDependencies[name])
		}
	}
	licences, err := os.ReadFile("web/third-party-licences.txt")
	if err != nil {
		t.Fatal(err)
	}
	for name, version := range record.Packages {
		if !strings.Contains(string(licences), name+" "+version+"\nLicence: ") {
			t.Errorf("no licence of %s %s", name, version)
		}
	}
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
}

// TestSeed holds page and seed together: the one-click users exist.
func TestSeed(t *testing.T) {
	t.Parallel()
	seed, err := os.ReadFile("supabase/seed.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range chat.DemoUsers {
		for _, want := range []string{"'" + u.Email + "', '" + u.Name + "'", "crypt('" + u.Password + "'"} {
			if !strings.Contains(string(seed), want) {
				t.Errorf("seed.sql lacks %s", want)
			}
		}
	}
}
