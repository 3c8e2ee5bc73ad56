package auth

import (
	"context"
	"encoding/json"
	"net/http"
	"path"
	"slices"
	"strings"
)

// Server answers /auth/v1, the prefix stripped. It is an http.Handler for many
// requests at once and runs nothing of its own.
type Server struct {
	// fixed after New
	cfg    Config
	hasher *hasher
	jwks   []byte
	mux    *http.ServeMux

	signups, updates, tokens, anonymous *buckets
}

// New checks cfg and makes a Server. It does no I/O.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:       cfg,
		hasher:    newHasher(bcryptCost, cfg.HashWorkers, cfg.HashQueue),
		jwks:      withKeyOps(cfg.Keys.JWKS()),
		mux:       http.NewServeMux(),
		signups:   newBuckets(cfg.RateLimits.SignInSignUp, fiveMinutes),
		updates:   newBuckets(cfg.RateLimits.SignInSignUp, fiveMinutes),
		tokens:    newBuckets(cfg.RateLimits.Token, fiveMinutes),
		anonymous: newBuckets(cfg.RateLimits.Anonymous, anHour),
	}
	s.routes()
	if cfg.EnableEmail && !cfg.EmailAutoconfirm {
		cfg.Logger.Warn("auth: sign-ups need a confirmation mail, which this version cannot send; they will fail")
	}
	return s, nil
}

// withKeyOps gives each public key what WebCrypto's import asks for.
func withKeyOps(jwks []byte) []byte {
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if json.Unmarshal(jwks, &set) != nil || set.Keys == nil {
		return []byte(`{"keys":[]}`)
	}
	set.Keys = slices.DeleteFunc(set.Keys, func(k map[string]any) bool { return k["kty"] == "oct" })
	for _, k := range set.Keys {
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
			delete(k, private)
		}
		k["use"], k["key_ops"] = "sig", []string{"verify"}
	}
	text, err := json.Marshal(set)
	if err != nil {
		panic(err) // came from JSON
	}
	return text
}

// answer handles one request, or says why not.
type answer func(w http.ResponseWriter, r *http.Request) error

// methods are the answers of one path.
type methods map[string]answer

func (s *Server) routes() {
	for pattern, m := range map[string]methods{
		"/health":                           {"GET": s.health, "HEAD": s.health},
		"/settings":                         {"GET": s.settings, "HEAD": s.settings},
		"/.well-known/jwks.json":            {"GET": s.serveJWKS, "HEAD": s.serveJWKS},
		"/.well-known/openid-configuration": {"GET": s.openID, "HEAD": s.openID},
		"/signup":                           {"POST": s.signup},
		"/token":                            {"POST": s.token},
		"/user":                             {"GET": s.getUser, "PUT": s.updateUser},
		"/logout":                           {"POST": s.logout},
		"/admin/users":                      {"GET": s.admin(s.adminList), "POST": s.admin(s.adminCreate)},
		"/admin/users/{id}":                 {"GET": s.admin(s.adminGet), "PUT": s.admin(s.adminUpdate), "DELETE": s.admin(s.adminDelete)},
	} {
		s.handle(pattern, m)
	}
	for pattern, m := range s.laterRoutes() {
		s.handle(pattern, m)
	}
	s.handle("/", nil)
}

func (s *Server) handle(pattern string, m methods) {
	if pattern != "/" && !strings.HasSuffix(pattern, "/") {
		pattern += "/{$}" // ServeHTTP brings every path into this form
	}
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		do, found := m[r.Method]
		if !found {
			do = methodNotAllowed(m)
		}
		if err := do(w, r); err != nil {
			s.writeError(w, r, err)
		}
	})
}

func methodNotAllowed(m methods) answer {
	return func(w http.ResponseWriter, _ *http.Request) error {
		if m == nil {
			return errRouteNotFound
		}
		allow := make([]string, 0, len(m))
		for method := range m {
			allow = append(allow, method)
		}
		slices.Sort(allow)
		w.Header().Set("Allow", strings.Join(allow, ", "))
		return errMethod
	}
}

// ServeHTTP answers one request within its deadline. A path counts the same with
// and without a slash at its end.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.RequestTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	u := *r.URL
	u.Path, u.RawPath = strings.TrimSuffix(path.Clean("/"+u.Path), "/")+"/", ""
	r.URL = &u
	s.mux.ServeHTTP(w, r)
}
