package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/schema"
)

// Config describes a Server.
type Config struct {
	// Pool logs in as authenticator; nothing but REST uses it. Required.
	Pool *pg.Pool
	// Schema is the catalog. Required.
	Schema *schema.Cache
	// Schemas are exposed; the first is the default. Required.
	Schemas []string
	// ExtraSearchPath follows the schema in the search_path.
	ExtraSearchPath []string
	// Aggregates allows aggregate functions in select. This, MaxRows and the next
	// three can be overridden in the database: ALTER ROLE authenticator SET
	// pgrst.db_aggregates_enabled, db_max_rows, db_plan_enabled, db_tx_end,
	// db_pre_request. There, too, and only there, are db_root_spec, openapi_mode,
	// openapi_security_active, openapi_server_proxy_uri, client_error_verbosity and
	// url_use_legacy_target_names.
	Aggregates bool
	// Plans answers media type application/vnd.pgrst.plan with the plan of the
	// query. Not for production: a plan tells of what the role may not see.
	Plans bool
	// TxEnd is commit, commit-allow-override, rollback or rollback-allow-override.
	// The latter of each let Prefer: tx decide. Default commit.
	TxEnd string
	// PreRequest is a function without arguments, schema.name, called in every
	// transaction before the query.
	PreRequest string
	// MaxRows bounds the rows of one answer; 0 is no bound.
	MaxRows int
	// BodyLimit bounds a body in bytes. Default 50 MiB.
	BodyLimit int64
	// BodyMemory bounds the bytes of all bodies that are in work at once, and of
	// what is made of them (rows of CSV), but for those of up to 64 KiB. Others wait.
	// Default 200 MiB; at least BodyLimit.
	BodyMemory int64
	// AcquireTimeout bounds the wait for a connection, and for BodyMemory. Default
	// 10 s.
	AcquireTimeout time.Duration
	// LargeAnswers is how many answers of 8 MiB and more may be on their way
	// straight from PostgreSQL at once, each with a connection of Pool; more are
	// taken into memory. Default 4.
	LargeAnswers int
	// StallTimeout is how long a client may take nothing of such an answer, and how
	// far a body of more than 64 KiB may be behind 64 KiB a second. Default 30 s.
	StallTimeout time.Duration
	// Logger is required.
	Logger *slog.Logger
}

// Server serves the paths behind /rest/v1.
type Server struct {
	cfg    Config
	log    *slog.Logger
	large  chan struct{}       // a place for each of Config.LargeAnswers
	bodies *semaphore.Weighted // of Config.BodyMemory
}

// New checks cfg.
func New(cfg Config) (*Server, error) {
	if cfg.Pool == nil || cfg.Schema == nil || cfg.Logger == nil || len(cfg.Schemas) == 0 {
		return nil, errors.New("rest needs Pool, Schema, Schemas and Logger")
	}
	if cfg.TxEnd == "" {
		cfg.TxEnd = "commit"
	}
	if !slices.Contains(txEnds, cfg.TxEnd) {
		return nil, fmt.Errorf("TxEnd %q: %w", cfg.TxEnd, sluice.ErrInvalid)
	}
	if cfg.BodyLimit == 0 {
		cfg.BodyLimit = 50 << 20
	}
	if cfg.BodyMemory == 0 {
		cfg.BodyMemory = max(200<<20, cfg.BodyLimit)
	}
	if cfg.BodyMemory < cfg.BodyLimit {
		return nil, fmt.Errorf("BodyMemory of %d bytes is less than the BodyLimit of one body, %d: %w", cfg.BodyMemory, cfg.BodyLimit, sluice.ErrInvalid)
	}
	if cfg.AcquireTimeout == 0 {
		cfg.AcquireTimeout = 10 * time.Second
	}
	if cfg.LargeAnswers == 0 {
		cfg.LargeAnswers = 4
	}
	if cfg.StallTimeout == 0 {
		cfg.StallTimeout = 30 * time.Second
	}
	return &Server{cfg, cfg.Logger, make(chan struct{}, cfg.LargeAnswers), semaphore.NewWeighted(cfg.BodyMemory)}, nil
}

// ServeHTTP serves one request: parse, plan, run, answer.
func (s *Server) ServeHTTP(w http.ResponseWriter, h *http.Request) {
	id, ok := sluice.IdentityFrom(h.Context())
	if !ok {
		id.Claims = sluice.Claims{Role: "anon", JSON: json.RawMessage(`{"role":"anon"}`)}
	}
	id.Claims.JSON = withRole(id.Claims)
	a, err := s.serve(w, h, id)
	switch {
	case err != nil:
		s.answerError(w, h, asError(err, id.Claims.Subject == "" && id.Claims.Role == "anon"))
	case a != nil:
		a.write(w, h)
	}
}

// withRole fills the role in that a token without one acts as.
func withRole(c sluice.Claims) json.RawMessage {
	var claims struct{ Role json.RawMessage }
	if c.Role != "anon" || json.Unmarshal(c.JSON, &claims) != nil || claims.Role != nil {
		return c.JSON
	}
	head := bytes.TrimRight(bytes.TrimSuffix(bytes.TrimSpace(c.JSON), []byte("}")), " \t\r\n")
	sep := ","
	if bytes.HasSuffix(head, []byte("{")) {
		sep = ""
	}
	return slices.Concat(head, []byte(sep+`"role":"anon"}`))
}

// serve runs everything up to the answer, which is nil when it was sent already.
func (s *Server) serve(w http.ResponseWriter, h *http.Request, id sluice.Identity) (*answer, error) {
	if id.BearerErr != nil {
		return nil, fromToken(id.BearerErr, id.Bearer)
	}
	if !audienceFits(id.Claims.JSON) {
		return nil, fromToken(sluice.Refuse(sluice.CodeInvalidJWTToken).WithText("The JWT 'aud' claim must be a string or an array of strings").
			WithRemedy("Issue tokens whose claim aud is a string, an array of strings, or not there.").WithCause(sluice.ErrTokenClaims), id.Bearer)
	}
	sh := &share{s: s, ctx: h.Context()}
	defer sh.release()
	r, p, err := s.prepare(h, sh)
	switch {
	case err != nil:
		return nil, err
	case p.empty != nil:
		return p.empty, nil
	}
	return s.run(w, h, id, r, p)
}

// audienceFits reports whether the claim aud is of a form that it may have. No
// audience is configured, so that any passes.
func audienceFits(claims json.RawMessage) bool {
	if !bytes.Contains(claims, []byte(`"aud"`)) {
		return true
	}
	var c struct{ Aud json.RawMessage }
	if json.Unmarshal(claims, &c) != nil || c.Aud == nil {
		return true // some other claim's
	}
	var one string
	var list []*string
	return json.Unmarshal(c.Aud, &one) == nil || json.Unmarshal(c.Aud, &list) == nil && !slices.Contains(list, nil)
}

// prepare parses a request and plans it. Nothing here takes a connection.
func (s *Server) prepare(h *http.Request, sh *share) (*request, *plan, error) {
	r, err := s.parse(h)
	if err != nil {
		return nil, nil, err
	}
	snap := s.cfg.Schema.Snapshot()
	if snap == nil {
		return nil, nil, fail(http.StatusServiceUnavailable, "PGRST002", "Could not query the database for the schema cache. Retrying.")
	}
	if r.target != "" && (r.method == http.MethodPost || r.method == http.MethodPatch || r.method == http.MethodPut) {
		if r.body, err = s.readBody(h, r, sh); err != nil {
			return nil, nil, err
		}
	}
	opt := s.optionsOf(snap)
	if err := r.checkTargets(opt.targetNames); err != nil {
		return nil, nil, err
	}
	rollback := opt.rollsBack(&r.prefer)
	if r.media.plan != nil && !opt.plans {
		return nil, nil, noMedia(r.media.accept)
	}
	p, err := s.plan(r, snap, &opt)
	if err != nil {
		return nil, nil, err
	}
	p.snapshot, p.pre = snap, opt.preRequest
	if rollback {
		p.rollback, p.immediate = true, !p.readOnly
	}
	return r, p, nil
}

// maxStatement bounds the text of a statement in bytes: PostgreSQL takes many times
// as much memory to read it. Values are no part of it.
const maxStatement = 1 << 20

// run executes the plan as the user. A large answer it sends itself.
func (s *Server) run(w http.ResponseWriter, h *http.Request, id sluice.Identity, r *request, p *plan) (*answer, error) {
	settings, ok := p.snapshot.Roles[id.Claims.Role]
	switch {
	case ok:
	case id.Claims.Role == "anon" && id.Bearer == "":
		// That the login may not act as anon is how anonymous access is disabled.
		e := fail(http.StatusUnauthorized, "PGRST302", "Anonymous access is disabled")
		e.Challenge = "Bearer"
		return nil, e
	default:
		return nil, &Error{
			Status: http.StatusUnauthorized, Code: "22023", Message: fmt.Sprintf("role %q does not exist", id.Claims.Role),
			Details: "The role of the token is not one that the login may act as.", Hint: fmt.Sprintf("grant %s to authenticator;", id.Claims.Role), Challenge: "Bearer",
		}
	}
	opt := pg.AsOptions{ReadOnly: p.readOnly, Rollback: p.rollback, AcquireTimeout: s.cfg.AcquireTimeout, Settings: s.settings(h, r, settings, p)}
	opt.Isolation = p.isolation
	for _, v := range settings {
		if v.Name == isolationSetting && opt.Isolation == "" {
			opt.Isolation = v.Value
		}
	}
	var check func([]pg.Result) error
	if p.veto != nil && r.media.plan == nil {
		check = func(res []pg.Result) error {
			c, err := readCounts(p.skip(res)[0])
			if err != nil {
				return err
			}
			return p.veto(c)
		}
	}
	statements := p.statements()
	for _, st := range statements {
		if len(st.SQL) > maxStatement {
			return nil, fail(http.StatusRequestURITooLong, string(sluice.CodeURLTooLong),
				fmt.Sprintf("The request becomes a statement of %d bytes; at most %d are sent", len(st.SQL), maxStatement)).
				hint("Select, embed and order by less, or put the query into a view or function.")
		}
	}
	st := &stream{s: s, w: w, h: h}
	p.streams(statements, r, st)
	res, err := s.cfg.Pool.Pipeline(h.Context(), id.Claims, opt, statements, check)
	switch {
	case st.finish(err):
		return nil, nil
	case st.refused != nil:
		return nil, st.refused
	case err != nil:
		return nil, err
	}
	res = p.skip(res)
	if p.describe != nil {
		return p.describe(res[0])
	}
	if r.media.plan != nil {
		return s.planAnswer(r, res[0]), nil
	}
	return p.read(r, res)
}

// read makes the answer of what the statements returned.
func (p *plan) read(r *request, res []pg.Result) (*answer, error) {
	c, err := p.counts(r, res)
	if err != nil {
		return nil, err
	}
	a, err := p.answer(r, c)
	if err != nil {
		return nil, err
	}
	return a, a.override(p.controls(res))
}

// isolationSetting is a setting that must be known when a transaction begins.
const isolationSetting = "default_transaction_isolation"

// settings are what SQL can see of the request (spec rest 1.6).
func (s *Server) settings(h *http.Request, r *request, role []schema.Setting, p *plan) []pg.Setting {
	var out []pg.Setting
	for _, v := range role {
		out = append(out, pg.Setting{Name: v.Name, Value: v.Value})
	}
	path := make([]string, 0, 1+len(s.cfg.ExtraSearchPath))
	for _, n := range append([]string{r.schema}, s.cfg.ExtraSearchPath...) {
		path = append(path, `"`+strings.ReplaceAll(n, `"`, `""`)+`"`)
	}
	headers := make(map[string]string, len(h.Header))
	for k, v := range h.Header {
		headers[strings.ToLower(k)] = strings.Join(v, ", ")
	}
	cookies := map[string]string{}
	for _, c := range h.Cookies() {
		cookies[c.Name] = c.Value
	}
	out = append(out,
		pg.Setting{Name: "search_path", Value: strings.Join(path, ", ")},
		pg.Setting{Name: "request.method", Value: h.Method},
		pg.Setting{Name: "request.path", Value: r.path},
		pg.Setting{Name: "request.headers", Value: jsonText(headers)},
		pg.Setting{Name: "request.cookies", Value: jsonText(cookies)},
	)
	if r.prefer.timezone != "" {
		out = append(out, pg.Setting{Name: "timezone", Value: r.prefer.timezone})
	}
	for _, v := range p.hoisted {
		out = append(out, pg.Setting{Name: v.Name, Value: v.Value})
	}
	return out
}

func jsonText(m map[string]string) string {
	b, err := marshal(m)
	if err != nil { // strings
		return "{}"
	}
	return string(b)
}

// answerError writes an error in PostgREST's shape, and says who refused.
func (s *Server) answerError(w http.ResponseWriter, h *http.Request, e *Error) {
	if e.Status >= 500 {
		s.log.Error("request failed", sluice.LogRequest, h.Header.Get("X-Request-Id"), sluice.LogCode, e.Code, sluice.LogError, e.cause)
	}
	hd := w.Header()
	hd.Set("Content-Type", "application/json; charset=utf-8")
	hd.Set("Proxy-Status", "PostgREST; error="+e.Code)
	if e.contentRange != "" {
		hd.Set("Content-Range", e.contentRange)
	}
	for k, v := range e.headers {
		hd.Set(k, v)
	}
	if e.Challenge != "" {
		hd.Set("WWW-Authenticate", e.Challenge)
	}
	if e.Status == http.StatusServiceUnavailable {
		hd.Set("Retry-After", "1")
	}
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden || e.Status == http.StatusServiceUnavailable {
		hd.Set(sluice.HeaderRefusedBy, "rest")
		hd.Set(sluice.HeaderCode, e.refusalCode())
	}
	if h.Method == http.MethodHead {
		w.WriteHeader(e.Status)
		return
	}
	if snap := s.cfg.Schema.Snapshot(); snap != nil {
		opt := s.optionsOf(snap)
		e.brief = opt.brief
	}
	body := e.body()
	hd.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// refusalCode is Sluice's own code where a token was at fault, else PostgREST's.
func (e *Error) refusalCode() string {
	var r *sluice.Refusal
	if errors.As(e.cause, &r) {
		return string(r.Code)
	}
	return e.Code
}
