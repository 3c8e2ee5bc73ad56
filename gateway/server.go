package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/token"
)

// Config describes the gateway.
type Config struct {
	// Logger receives the access log and refusals. Required.
	Logger *slog.Logger
	// Keys resolves API keys and tokens. Required.
	Keys *token.Keyring
	// Auth, REST and Realtime serve /auth/v1, /rest/v1 and /realtime/v1; the
	// prefix is taken off. A nil one answers 501.
	Auth, REST, Realtime http.Handler
	// Inspect serves /sluice/v1: what the node knows of itself.
	Inspect http.Handler
	// Extra are further path prefixes, without keys. Each starts with a slash;
	// "/" takes whatever no other route does.
	Extra map[string]http.Handler
	// Ready answers the health probe /rest-admin/v1/ready: nil once REST can
	// serve. Default: always ready.
	Ready func(context.Context) error
	// Explain accepts a socket whose key is refused, so that its joins can be
	// answered with the reason. For development: a browser shows no status of a
	// refused upgrade.
	Explain bool
	// Strict refuses requests without an API key. Off, they act as anon, except
	// on the socket.
	Strict bool
	// Origins are those whose pages may read answers, as browsers write them; they
	// are allowed credentials. Empty: any, without. Sockets know no such rule.
	Origins []string
	// MaxBody bounds REST bodies in bytes. Default 50 MiB.
	MaxBody int64
	// Listeners to serve on in Run. At least one is required for Run.
	Listeners []net.Listener
	// ShutdownTimeout bounds the wait for requests under way. Default 5 s.
	ShutdownTimeout time.Duration
}

// Limits that no client comes near: the longest URL beside 32 KB of cookies.
const (
	maxHeaderBytes = 96 << 10
	maxURLBytes    = 48 << 10
)

// Server is the gateway.
type Server struct {
	cfg    Config
	log    *slog.Logger
	routes []route // longest prefix first

	cookieWarned atomic.Int64 // when, as Unix nanoseconds
}

// route is one row of the table of paths.
type route struct {
	prefix  string // without trailing slash
	service string // for texts
	handler http.Handler
	rules   token.Rules // what the service asks of a bearer token
	maxBody int64
	open    bool // no API key is looked at
}

// isSocket reports whether the path behind the prefix is Realtime's WebSocket.
func (rt route) isSocket(rest string) bool {
	return rt.service == "realtime" && (rest == "/websocket" || rest == "/socket/websocket")
}

// New checks cfg and the table of routes: two routes on one path are an error,
// because which of them wins would be chance.
func New(cfg Config) (*Server, error) {
	if cfg.Logger == nil || cfg.Keys == nil {
		return nil, errors.New("gateway needs Logger and Keys")
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 50 << 20
	}
	if cfg.ShutdownTimeout == 0 {
		cfg.ShutdownTimeout = 5 * time.Second
	}
	s := &Server{cfg: cfg, log: cfg.Logger}
	s.routes = []route{
		// Auth and Realtime have limits of their own just below, and texts for them.
		{prefix: "/auth/v1", service: "auth", handler: cfg.Auth, rules: token.AuthRules, maxBody: 2 << 20},
		{prefix: "/rest/v1", service: "rest", handler: cfg.REST, rules: token.RESTRules, maxBody: cfg.MaxBody},
		{prefix: "/realtime/v1", service: "realtime", handler: cfg.Realtime, rules: token.RealtimeRules, maxBody: 8_000_001},
		{prefix: "/sluice/v1", service: "sluice", handler: cfg.Inspect, rules: token.RESTRules, maxBody: 1 << 10},
		{prefix: "/rest-admin/v1/ready", service: "rest-admin", handler: http.HandlerFunc(s.ready), open: true},
		{prefix: "/storage/v1", service: "storage"},
		{prefix: "/functions/v1", service: "functions"},
		{prefix: "/graphql/v1", service: "graphql", handler: graphQL(cfg.REST), rules: token.RESTRules, maxBody: cfg.MaxBody},
		{prefix: "/analytics/v1", service: "analytics"},
		{prefix: "/pooler/v2", service: "pooler"},
		{prefix: "/pg", service: "pg-meta"},
		{prefix: "/mcp", service: "mcp"},
	}
	for prefix, h := range cfg.Extra {
		if !strings.HasPrefix(prefix, "/") || h == nil {
			return nil, fmt.Errorf("gateway: extra route %q needs a handler and a slash in front", prefix)
		}
		s.routes = append(s.routes, route{prefix: strings.TrimRight(prefix, "/"), service: "extra", handler: h, open: true})
	}
	slices.SortFunc(s.routes, func(a, b route) int {
		if n := len(b.prefix) - len(a.prefix); n != 0 {
			return n
		}
		return strings.Compare(a.prefix, b.prefix)
	})
	for i := 1; i < len(s.routes); i++ {
		if s.routes[i].prefix == s.routes[i-1].prefix {
			return nil, fmt.Errorf("gateway: two routes on %q", s.routes[i].prefix)
		}
	}
	return s, nil
}

// graphQL is what REST makes of /graphql/v1: a call of graphql_public.graphql,
// which is pg_graphql's where that extension is there.
func graphQL(rest http.Handler) http.Handler {
	if rest == nil {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Content-Profile", "graphql_public")
		rest.ServeHTTP(w, stripped(r, "/rpc/graphql"+strings.TrimSuffix(r.URL.EscapedPath(), "/")))
	})
}

// ready answers the health probe that the Supabase CLI sends.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(r.Context()); err != nil {
			s.log.Debug("not ready", sluice.LogError, err)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
	}
	w.WriteHeader(http.StatusOK)
}

// Run serves until ctx ends, then waits for requests under way. Sockets are
// Realtime's to close.
func (s *Server) Run(ctx context.Context) error {
	if len(s.cfg.Listeners) == 0 {
		return errors.New("gateway: no listener")
	}
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, len(s.cfg.Listeners))
	for _, l := range s.cfg.Listeners {
		go func() { ended <- srv.Serve(l) }() // ends with Shutdown or Close below; received here
	}
	var first error
	running := len(s.cfg.Listeners)
	select {
	case <-ctx.Done():
	case first = <-ended:
		running--
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(wait); err != nil {
		srv.Close()
	}
	for range running {
		<-ended
	}
	if first != nil && !errors.Is(first, http.ErrServerClosed) {
		return fmt.Errorf("serve http: %w", first)
	}
	return nil
}

// ServeHTTP serves one request: CORS, route, limits, identity, handler, log.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, start: time.Now(), id: requestID(r), origin: s.allowed(r)}
	rec.Header().Set("X-Request-Id", rec.id)
	setCORS(rec.Header(), rec.origin)
	defer s.finish(rec, r)
	if isPreflight(r) {
		preflight(rec, r)
		return
	}
	s.warnCookies(rec, r)
	if len(r.RequestURI) > maxURLBytes {
		s.refuse(rec, sluice.Refuse(sluice.CodeURLTooLong))
		return
	}
	path, refusal := canonical(r.URL.EscapedPath())
	if refusal != nil {
		s.refuse(rec, refusal)
		return
	}
	rt, rest, ok := s.match(path)
	if !ok {
		s.refuse(rec, sluice.Refuse(sluice.CodeRouteNotFound))
		return
	}
	if rt.handler == nil {
		s.refuse(rec, sluice.Refuse(sluice.CodeNotServed).WithText("Sluice does not serve %s (%s)", rt.service, rt.prefix))
		return
	}
	if rt.maxBody > 0 {
		if refusal := limitBody(w, r, rt.maxBody); refusal != nil {
			s.refuse(rec, refusal)
			return
		}
	}
	ctx := r.Context()
	if !rt.open {
		id, shown, refusal := s.identify(r, rt, rest)
		rec.identity, rec.shown = id, shown
		socket := rt.isSocket(rest)
		switch {
		case socket && !wantsUpgrade(r):
			s.diagnose(rec, r, refusal)
			return
		case socket && refusal != nil && s.cfg.Explain:
			id.Refusal, rec.refused = refusal, refusal.Code
		case refusal != nil:
			if s.cfg.Strict && refusal.Status == http.StatusUnauthorized {
				rec.Header().Set("WWW-Authenticate", `Key realm="sluice"`)
			}
			s.refuse(rec, refusal)
			return
		}
		ctx = sluice.WithIdentity(ctx, id)
	}
	r.Header.Del("X-Api-Key") // a service that reads it would take it before the resolved key
	rt.handler.ServeHTTP(rec, stripped(r.WithContext(ctx), rest))
}

// match finds the route with the longest prefix. rest is the escaped path behind
// it and starts with a slash.
func (s *Server) match(escaped string) (rt route, rest string, ok bool) {
	for _, rt := range s.routes {
		rest, ok := strings.CutPrefix(escaped, rt.prefix)
		switch {
		case !ok:
		case rest == "":
			return rt, "/", true
		case rest[0] == '/':
			return rt, rest, true
		}
	}
	return route{}, "", false
}

// stripped returns r with another path; percent escapes stay as they are.
func stripped(r *http.Request, escaped string) *http.Request {
	u := *r.URL
	if p, err := url.PathUnescape(escaped); err == nil {
		u.Path, u.RawPath = p, escaped
	}
	r.URL = &u // r is our own copy
	return r
}

func wantsUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// finish writes the access log and recovers from bugs: an answer that has begun
// is cut off, so that nobody takes it for whole.
func (s *Server) finish(rec *recorder, r *http.Request) {
	p := recover()
	if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
		s.log.Error("panic in a request", sluice.LogRequest, rec.id, "panic", p, "stack", string(debug.Stack()))
		if rec.status == 0 {
			s.refuse(rec, sluice.Refuse(sluice.CodeInternal))
			p = nil
		}
	}
	s.logAccess(rec, r)
	rec.extend() // what net/http has yet to send
	if p != nil {
		panic(http.ErrAbortHandler)
	}
}
