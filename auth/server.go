package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/sluice-dev/sluice"
)

// Server answers /auth/v1, the prefix stripped. It is an http.Handler for many
// requests at once and runs nothing of its own.
type Server struct {
	// fixed after New
	cfg    Config
	hasher *hasher
	jwks   []byte
	mux    *http.ServeMux

	redirects *redirects
	templates *templates
	providers map[string]*provider
	captcha   *captcha
	// breachedList is nil where new passwords are not looked up.
	breachedList *breachedList
	hooks        map[string]*hook // by point
	hookPause    time.Duration    // between two tries of a request
	busyFor      time.Duration    // how long a refresh waits for the lock of its session
	mailing      chan struct{}    // one for each transaction that waits for a mail server

	textBody, factorText *template.Template // of messages with a code

	signups, updates, otps, magiclinks, recovers, resends, tokens, verifies, anonymous *buckets
	challenges, factorVerifies                                                         *buckets
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
		templates: &templates{own: cfg.Templates, log: cfg.Logger},
		mailing:   make(chan struct{}, mailsAtOnce),
		providers: map[string]*provider{},
		hooks:     map[string]*hook{},
		hookPause: 2 * time.Second,
		busyFor:   busyFor,

		breachedList: newBreachedList(cfg.RefuseBreached, cfg.BreachedURL),

		signups:    newBuckets(cfg.RateLimits.SignInSignUp, fiveMinutes),
		updates:    newBuckets(cfg.RateLimits.SignInSignUp, fiveMinutes),
		otps:       newBuckets(cfg.RateLimits.SignInSignUp, fiveMinutes),
		magiclinks: newBuckets(cfg.RateLimits.SignInSignUp, fiveMinutes),
		recovers:   newBuckets(cfg.RateLimits.SignInSignUp, fiveMinutes),
		resends:    newBuckets(cfg.RateLimits.SignInSignUp, fiveMinutes),
		tokens:     newBuckets(cfg.RateLimits.Token, fiveMinutes),
		verifies:   newBuckets(cfg.RateLimits.Verify, fiveMinutes),
		anonymous:  newBuckets(cfg.RateLimits.Anonymous, anHour),

		challenges:     newBuckets(cfg.RateLimits.MFA, time.Minute),
		factorVerifies: newBuckets(cfg.RateLimits.MFA, time.Minute),
	}
	if s.redirects, err = newRedirects(cfg.SiteURL, cfg.RedirectURLs); err != nil {
		return nil, fmt.Errorf("auth: %w: %w", err, sluice.ErrInvalid)
	}
	if s.captcha, err = newCaptcha(cfg.Captcha); err != nil {
		return nil, fmt.Errorf("auth: %w: %w", err, sluice.ErrInvalid)
	}
	for name, p := range cfg.Providers {
		if s.providers[name], err = newProvider(name, p, cfg.ExternalURL+"/callback", cfg.Now); err != nil {
			return nil, fmt.Errorf("auth: provider %q: %w: %w", name, err, sluice.ErrInvalid)
		}
	}
	for point, h := range cfg.Hooks {
		if !slices.Contains([]string{hookToken, hookBeforeUser, hookAfterUser, hookPassword, hookMFA, hookMail, hookSMS}, point) {
			return nil, fmt.Errorf("auth: there is no hook %q: %w", point, sluice.ErrInvalid)
		}
		if s.hooks[point], err = newHook(h); err != nil {
			return nil, fmt.Errorf("auth: hook %q: %w: %w", point, err, sluice.ErrInvalid)
		}
	}
	s.textBody, s.factorText = s.textTemplate(cfg.SMS.Template), s.textTemplate(cfg.PhoneFactor.Template)
	s.routes()
	s.warn()
	return s, nil
}

// warn tells what the settings allow that their author may not have meant.
func (s *Server) warn() {
	if s.cfg.EnableEmail && !s.cfg.EmailAutoconfirm && s.cfg.Mailer == nil {
		s.cfg.Logger.Warn("auth: sign-ups need a confirmation mail and will fail", sluice.LogError, errNoMailer)
	}
	for _, entry := range s.cfg.RedirectURLs {
		if openHost(entry) {
			s.cfg.Logger.Warn("auth: a redirect URL leaves the end of its host open; a stranger's site may match it", "url", entry)
		}
	}
	for name := range s.cfg.Templates {
		if _, known := subjects[name]; !known {
			s.cfg.Logger.Warn("auth: there is no such mail", "mail", name)
		}
	}
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
		"/signup":                           {"POST": s.human(s.signup)},
		"/token":                            {"POST": s.token},
		"/user":                             {"GET": s.getUser, "PUT": s.updateUser},
		"/logout":                           {"POST": s.logout},
		"/otp":                              {"POST": s.human(s.otp)},
		"/magiclink":                        {"POST": s.human(s.magiclink)},
		"/recover":                          {"POST": s.human(s.recover)},
		"/resend":                           {"POST": s.human(s.resend)},
		"/verify":                           {"GET": s.verifyLink, "POST": s.verify},
		"/reauthenticate":                   {"GET": s.reauthenticate},
		"/invite":                           {"POST": s.admin(s.invite)},
		"/admin/generate_link":              {"POST": s.admin(s.generateLink)},
		"/admin/audit":                      {"GET": s.admin(s.adminAudit)},
		"/authorize":                        {"GET": s.authorize},
		"/callback":                         {"GET": s.callback, "POST": s.callback},
		"/user/identities/authorize":        {"GET": s.linkIdentity},
		"/user/identities/{identity}":       {"DELETE": s.unlinkIdentity},
		"/factors":                          {"POST": s.enroll},
		"/factors/{factor}":                 {"DELETE": s.unenroll},
		"/factors/{factor}/challenge":       {"POST": s.challenge},
		"/factors/{factor}/verify":          {"POST": s.verifyFactor},
		"/admin/users/{id}/factors":         {"GET": s.admin(s.adminFactors)},

		"/admin/users/{id}/factors/{factor}": {"PUT": s.admin(s.adminFactorUpdate), "DELETE": s.admin(s.adminFactorDelete)},
		"/admin/users":                       {"GET": s.admin(s.adminList), "POST": s.admin(s.adminCreate)},
		"/admin/users/{id}":                  {"GET": s.admin(s.adminGet), "PUT": s.admin(s.adminUpdate), "DELETE": s.admin(s.adminDelete)},
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
	r = r.WithContext(context.WithValue(ctx, clientKey{}, s.clientIP(r)))
	u := *r.URL
	u.Path, u.RawPath = strings.TrimSuffix(path.Clean("/"+u.Path), "/")+"/", ""
	r.URL = &u
	s.mux.ServeHTTP(w, r)
}
