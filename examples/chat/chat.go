// Package chat is the example application: a static page that talks to a
// Supabase API with the stock client, and the migrations and seed that it needs
// (folder supabase/). `sluice start --chat` serves it.
//
// The page has no build step: web/ is embedded as it stands. Its only
// third-party code is web/supabase.js, one bundle of supabase-js and
// @supabase/ssr that vendor/build.mjs makes (`make vendor`) and whose hash a
// test compares. The package knows nothing of Sluice: any Supabase URL and key
// will do.
package chat

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

//go:embed web
var web embed.FS

// Client is the page's bundle of supabase-js, an ES module that exports createClient.
func Client() []byte {
	text, err := web.ReadFile("web/supabase.js")
	if err != nil {
		panic(err) // embedded
	}
	return text
}

// Config says which project the page talks to.
type Config struct {
	// APIURL is the project URL as a client is given it, for example
	// http://127.0.0.1:54321. Required.
	APIURL string
	// PublishableKey is the project's public API key. Required.
	PublishableKey string
	// DemoUsers offers the two users of supabase/seed.sql for sign-in with one
	// click. Only for a local project that has that seed.
	DemoUsers bool
}

// DemoUser is a user of supabase/seed.sql.
type DemoUser struct {
	Name     string `json:"name"`
	Email    string `json:"email"`
	Password string `json:"password"`
}

// DemoUsers are the users that supabase/seed.sql makes, for local development.
var DemoUsers = []DemoUser{
	{Name: "Alice", Email: "alice@example.com", Password: "sluice-chat"},
	{Name: "Bob", Email: "bob@example.com", Password: "sluice-chat"},
}

// contentTypes are stated, not guessed: the answer must not depend on the
// machine's MIME tables, and nosniff makes a wrong one fail.
var contentTypes = map[string]string{
	".html":        "text/html; charset=utf-8",
	".css":         "text/css; charset=utf-8",
	".js":          "text/javascript; charset=utf-8",
	".svg":         "image/svg+xml",
	".txt":         "text/plain; charset=utf-8",
	".webmanifest": "application/manifest+json",
}

// New returns the handler of the page: web/ and GET /config.json. All its links
// are relative, so that it can stand under any prefix (http.StripPrefix).
func New(cfg Config) (http.Handler, error) {
	if cfg.PublishableKey == "" {
		return nil, errors.New("chat: PublishableKey is required")
	}
	connect, err := connectSources(cfg.APIURL)
	if err != nil {
		return nil, fmt.Errorf("chat: read APIURL %q: %w", cfg.APIURL, err)
	}
	answer := struct {
		URL       string     `json:"url"`
		Key       string     `json:"publishableKey"`
		DemoUsers []DemoUser `json:"demoUsers"`
	}{strings.TrimRight(cfg.APIURL, "/"), cfg.PublishableKey, []DemoUser{}}
	if cfg.DemoUsers {
		answer.DemoUsers = DemoUsers
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("chat: encode config.json: %w", err)
	}
	root, err := fs.Sub(web, "web")
	if err != nil {
		return nil, fmt.Errorf("chat: open web: %w", err)
	}
	return &handler{files: root, config: body, policy: policy(connect)}, nil
}

type handler struct {
	files  fs.FS
	config []byte
	policy string
}

// ServeHTTP answers GET and HEAD of the page's files and of config.json.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", h.policy)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	// Revalidated each time: after an upgrade the old page must not stay.
	head.Set("Cache-Control", "no-cache")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if name == "" {
		name = "index.html"
	}
	if name == "config.json" {
		head.Set("Content-Type", "application/json; charset=utf-8")
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(h.config))
		return
	}
	body, err := fs.ReadFile(h.files, name)
	kind, known := contentTypes[path.Ext(name)]
	if err != nil || !known {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	head.Set("Content-Type", kind)
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(body))
}

// policy returns the page's Content-Security-Policy: its own files, and
// connections to the API. Nothing else is loaded from anywhere.
func policy(connect []string) string {
	return strings.Join([]string{
		"default-src 'none'",
		"script-src 'self'",
		"style-src 'self'",
		"img-src 'self'",
		"manifest-src 'self'",
		"connect-src 'self' " + strings.Join(connect, " "),
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")
}

// connectSources returns the origins that the page must be allowed to reach for
// apiURL: always the WebSocket origin beside the HTTP one, because an http:
// source never covers a WebSocket, and both names of the loopback host, because
// a source is compared as written.
func connectSources(apiURL string) ([]string, error) {
	u, err := url.Parse(apiURL)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	socket, ok := map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	if !ok {
		return nil, fmt.Errorf("the scheme is %q, want http or https", u.Scheme)
	}
	if u.Hostname() == "" || strings.ContainsAny(u.Host, "; ,'\"*") {
		return nil, errors.New("it names no host")
	}
	if u.User != nil {
		return nil, errors.New("it carries a user name")
	}
	hosts := []string{u.Host}
	if other, ok := map[string]string{"127.0.0.1": "localhost", "localhost": "127.0.0.1"}[u.Hostname()]; ok {
		if port := u.Port(); port != "" {
			other += ":" + port
		}
		hosts = append(hosts, other)
	}
	var sources []string
	for _, host := range hosts {
		sources = append(sources, u.Scheme+"://"+host, socket+"://"+host)
	}
	return sources, nil
}
