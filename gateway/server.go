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
	// Extra are further path prefixes, without keys.
	Extra map[string]http.Handler
	// Explain accepts a socket whose key is refused, so that its joins can be
	// answered with the reason. For development: a browser shows no status of a
	// refused upgrade.
	Explain bool
	// Strict refuses requests without an API key. Off, they act as anon, except
	// on the socket.
	Strict bool
	// MaxBody bounds REST bodies in bytes. Default 50 MiB.
	MaxBody int64
	// Listeners to serve on in Run. At least one is required for Run.
	Listeners []net.Listener
	// ShutdownTimeout bounds the wait for requests under way. Default 5 s.
	ShutdownTimeout time.Duration
}

// Limits that no client comes near. Cookies of localhost go to every port, so
// headers need room.
const (
	maxHeaderBytes = 64 << 10
	maxURLBytes    = 48 << 10
	largeCookie    = 8 << 10
)

// Server is the gateway.
type Server struct {
	cfg    Config
	log    *slog.Logger
	routes []route // longest prefix first
}

// route is one row of the table of paths.
type route struct {
	prefix  string // without trailing slash
	service string // for texts and logs
	handler http.Handler
	maxBody int64
	open    bool // no API key is looked at
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
		{prefix: "/auth/v1", service: "auth", handler: cfg.Auth, maxBody: 2 << 20},
		{prefix: "/rest/v1", service: "rest", handler: cfg.REST, maxBody: cfg.MaxBody},
		{prefix: "/realtime/v1", service: "realtime", handler: cfg.Realtime, maxBody: 8_000_001},
		{prefix: "/storage/v1", service: "storage"},
		{prefix: "/functions/v1", service: "functions"},
		{prefix: "/graphql/v1", service: "graphql"},
		{prefix: "/rest-admin/v1/ready", service: "rest-admin", handler: http.HandlerFunc(ready), open: true},
	}
	for prefix, h := range cfg.Extra {
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

// ready answers the health probe that the Supabase CLI sends.
func ready(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }

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

// ServeHTTP serves one request: CORS, route, identity, limits, handler, log.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, start: time.Now(), id: requestID(r)}
	rec.Header().Set("X-Request-Id", rec.id)
	setCORS(rec.Header())
	defer s.finish(rec, r)
	if isPreflight(r) {
		preflight(rec, r)
		return
	}
	if len(r.RequestURI) > maxURLBytes {
		s.refuse(rec, sluice.Refuse(sluice.CodeURLTooLong))
		return
	}
	rt, rest, ok := s.match(r.URL.EscapedPath())
	if !ok {
		s.refuse(rec, sluice.Refuse(sluice.CodeRouteNotFound))
		return
	}
	rec.service = rt.service
	if rt.handler == nil {
		s.refuse(rec, sluice.Refuse(sluice.CodeNotServed).WithText("Sluice does not serve %s (%s)", rt.service, rt.prefix))
		return
	}
	if rt.maxBody > 0 {
		if r.ContentLength > rt.maxBody {
			s.refuse(rec, sluice.Refuse(sluice.CodeBodyTooLarge).WithText("The request body has %d bytes, at most %d are taken", r.ContentLength, rt.maxBody))
			return
		}
		r.Body = http.MaxBytesReader(rec, r.Body, rt.maxBody)
	}
	ctx := r.Context()
	if !rt.open {
		id, refusal := s.identify(r, rt, rest)
		rec.identity = id
		socket := rt.service == "realtime" && isSocket(rest)
		switch {
		case socket && !wantsUpgrade(r):
			s.diagnose(rec, r, id, refusal)
			return
		case socket && refusal != nil && s.cfg.Explain:
			id.Refusal = refusal
			rec.identity, rec.refused = id, refusal.Code
		case refusal != nil:
			s.refuse(rec, refusal)
			return
		}
		ctx = sluice.WithIdentity(ctx, id)
	}
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

func isSocket(rest string) bool { return rest == "/websocket" || rest == "/socket/websocket" }

func wantsUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// finish recovers from bugs and writes the access log.
func (s *Server) finish(rec *recorder, r *http.Request) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			panic(p)
		}
		s.log.Error("panic in a request", sluice.LogRequest, rec.id, "panic", p, "stack", string(debug.Stack()))
		if rec.status == 0 && !rec.hijacked {
			s.refuse(rec, sluice.Refuse(sluice.CodeInternal))
		}
	}
	s.logAccess(rec, r)
}
