// Package console is the page on which a developer looks at a running stack: who is
// connected, which tables send changes and why one does not, what was refused, the
// change stream, mails that were caught; and an inspector that joins a channel as
// anybody.
//
// It is for a stack on this machine: it listens to loopback, is not opened by
// another host name, and does what changes something only for its own pages. Secrets
// are in no page; a button asks for one.
package console

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/inspect"
	"github.com/sluice-dev/sluice/internal/loopback"
)

//go:embed page
var files embed.FS

// Config says what the console shows.
type Config struct {
	// Project is the project's name. Required.
	Project string
	// APIURL is what a client is given, PublishableKey the key that goes with it.
	// Required.
	APIURL         string
	PublishableKey string
	// Values are addresses and keys, as `sluice status` prints them.
	Values []Value
	// Node returns what looks into the services; nil while they begin anew. Required.
	Node func() *inspect.Server
	// Database is read for the tables, and mended where somebody asks. Required.
	Database sluice.Secret
	// Sign makes a token of claims, for the inspector. Required.
	Sign func(claims map[string]any) (string, error)
	// Mails lists mails that were caught, MailURL is their page; nil and empty when
	// nothing catches them.
	Mails   func() []Mail
	MailURL string
	// Log returns the end of the stack's log. Required.
	Log func() ([]byte, error)
	// Client is supabase-js, an ES module that exports createClient. Required.
	Client []byte
	// Logger is required.
	Logger *slog.Logger
}

// Value is an address or a key. One that is Secret is shown when it is asked for.
type Value struct {
	Name, Label, Value string
	Secret             bool
}

// Mail is one that was caught.
type Mail struct {
	ID, To, Subject string
	At              time.Time
}

// Console is the handler of all pages.
type Console struct {
	cfg     Config
	pages   map[string]*template.Template
	csp     string
	handler http.Handler
}

// New checks cfg.
func New(cfg Config) (*Console, error) {
	if cfg.Node == nil || cfg.Sign == nil || cfg.Log == nil || cfg.Logger == nil || cfg.Database == "" || cfg.PublishableKey == "" || len(cfg.Client) == 0 {
		return nil, errors.New("the console needs Node, Database, Sign, Log, Client, PublishableKey and Logger")
	}
	u, err := url.Parse(cfg.APIURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("the console needs the API's URL, not %q: %w", cfg.APIURL, sluice.ErrInvalid)
	}
	socket := *u
	socket.Scheme = "ws" + strings.TrimPrefix(u.Scheme, "http")
	c := &Console{cfg: cfg, pages: map[string]*template.Template{}}
	c.csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; connect-src 'self' " +
		u.Scheme + "://" + u.Host + " " + socket.Scheme + "://" + socket.Host
	for _, name := range pageNames {
		if c.pages[name.File], err = template.New("base.html").Funcs(functions).ParseFS(files, "page/base.html", "page/"+name.File+".html"); err != nil {
			return nil, err
		}
	}
	// A page elsewhere may not press the buttons.
	c.handler = loopback.Guard("the console", http.NewCrossOriginProtection().Handler(c.routes()))
	return c, nil
}

// ServeHTTP answers the console's pages.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", c.csp)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	c.handler.ServeHTTP(w, r)
}

// link is an entry of the menu.
type link struct{ File, Path, Title string }

var pageNames = []link{
	{"overview", "/", "Overview"},
	{"connections", "/connections", "Connections"},
	{"tables", "/tables", "Tables"},
	{"refusals", "/refusals", "Refusals"},
	{"changes", "/changes", "Changes & log"},
	{"inspector", "/inspector", "Inspector"},
	{"why", "/why", "Why not?"},
	{"mails", "/mails", "Mails"},
}

func (c *Console) routes() http.Handler {
	mux := http.NewServeMux()
	for path, show := range map[string]func(*http.Request, *page) (any, error){
		"/": c.overview, "/connections": c.connections, "/tables": c.tables, "/refusals": c.refusals,
		"/changes": c.changes, "/inspector": c.inspector, "/why": c.why, "/mails": c.mails,
	} {
		pattern := "GET " + path
		if path == "/" {
			pattern = "GET /{$}"
		}
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { c.show(w, r, path, show) })
	}
	mux.HandleFunc("POST /mend", c.mend)
	mux.HandleFunc("POST /token", c.token)
	mux.HandleFunc("POST /secret", c.secret)
	static := func(path, kind string, text []byte) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(text) // the browser may have gone
		})
	}
	for name, kind := range map[string]string{"console.css": "text/css", "console.js": "text/javascript", "inspector.js": "text/javascript"} {
		text, err := files.ReadFile("page/" + name)
		if err != nil {
			panic(err) // embedded
		}
		static("/"+name, kind+"; charset=utf-8", text)
	}
	static("/supabase.js", "text/javascript; charset=utf-8", c.cfg.Client)
	return mux
}

// page is what every template gets.
type page struct {
	Project, Title, Path string
	Menu                 []link
	// Down tells that the services are beginning anew.
	Down bool
	Note string // of what was just done
	View inspect.View
	Data any
}

// show renders one page. While the services begin anew it says so.
func (c *Console) show(w http.ResponseWriter, r *http.Request, path string, data func(*http.Request, *page) (any, error)) {
	p := &page{Project: c.cfg.Project, Path: path, Menu: pageNames, Note: r.URL.Query().Get("done")}
	file := ""
	for _, l := range pageNames {
		if l.Path == path {
			p.Title, file = l.Title, l.File
		}
	}
	if node := c.cfg.Node(); node == nil {
		p.Down = true
	} else {
		ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
		defer cancel()
		p.View = node.View(ctx, sluice.Only{Brief: path != "/connections"})
		var err error
		if p.Data, err = data(r.WithContext(ctx), p); err != nil {
			c.fail(w, err)
			return
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := c.pages[file].Execute(w, p); err != nil && r.Context().Err() == nil {
		c.cfg.Logger.Warn("show a page of the console", "page", path, sluice.LogError, err)
	}
}

func (c *Console) fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, sluice.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, sluice.ErrInvalid):
		status = http.StatusBadRequest
	default:
		c.cfg.Logger.Warn("the console", sluice.LogError, err)
	}
	http.Error(w, err.Error(), status)
}

// functions are what templates may call.
var functions = template.FuncMap{
	"bytes": func(n int64) string {
		switch {
		case n >= 1<<20:
			return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
		case n >= 1<<10:
			return fmt.Sprintf("%.1f kB", float64(n)/(1<<10))
		}
		return fmt.Sprintf("%d B", n)
	},
	"ago": func(t time.Time) string {
		d := time.Since(t).Round(time.Second)
		switch {
		case d < time.Minute:
			return fmt.Sprintf("%d s ago", int(d.Seconds()))
		case d < time.Hour:
			return fmt.Sprintf("%d min ago", int(d.Minutes()))
		}
		return t.Local().Format("2006-01-02 15:04")
	},
	"clock": func(t time.Time) string { return t.Local().Format("15:04:05") },
	"tier":  tier,
	"seconds": func(s float64) string {
		return time.Duration(s * float64(time.Second)).Round(time.Second).String()
	},
}

// tier says in a word how a table's policies are decided.
func tier(n int) string {
	names := []string{"everybody alike", "computed", "one query for all", "asked as the user"}
	if n < 0 || n >= len(names) {
		return ""
	}
	return names[n]
}
