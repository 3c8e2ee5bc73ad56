// Package doctor finds out why a client's realtime fails, on any Supabase:
// Sluice, the Supabase CLI's stack, a self-hosted or a hosted project. It goes
// the way that a client's messages go, hop by hop, and notes what was sent, what
// came back, and how to mend it. It only reads: a row is written only when
// Config.WriteProbe asks for it, and deleted again. Mend, which is another call,
// runs the SQL that findings propose.
//
// A finding is not an error of the check. Secrets are redacted in everything
// that leaves the package, and a key is sent to no other host than the
// project's. cmd/sluice is its caller.
package doctor

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/token"
)

// Config says what to check and with whose eyes.
type Config struct {
	// URL is the project's, as the app gives it to createClient. Required.
	URL string
	// Key is the app's API key: publishable, secret or a legacy JWT. Required.
	Key sluice.Secret
	// LegacyKey is the anon JWT of the same project, to tell a key that is not
	// translated from a socket that refuses everybody. Default: the development
	// stack's, which is public, when URL and Key may be that stack's.
	LegacyKey sluice.Secret
	// JWTSecret verifies JWT keys and HS256 tokens. Optional.
	JWTSecret sluice.Secret
	// VSN is the protocol version that the app's client asks for. Default 2.0.0.
	VSN string

	// Email and Password sign a user in; Token is a user's access token instead.
	// Without either the checks that need a user are skipped.
	Email    string
	Password sluice.Secret
	Token    sluice.Secret

	// SecretKey lets a Sluice be asked for its own view. It is sent to
	// URL's server and to no other. Optional.
	SecretKey sluice.Secret

	// Tables to subscribe to, as schema.table or table (of schema public).
	Tables []string
	// PrivateTopic is a private channel of the app to join. Optional.
	PrivateTopic string
	// WriteProbe is a row, a JSON object, to insert through REST into the one
	// table of Tables; its change must arrive, then the row is deleted. Optional.
	WriteProbe json.RawMessage
	// DatabaseURL is read in one READ ONLY transaction. Optional.
	DatabaseURL sluice.Secret

	// Page is the address of the app's page. Optional.
	Page string
	// Project is the app's folder: .env files, lock file, Node version. Optional.
	Project string

	// Timeout bounds each wait for the network. Default 10 s, which is what
	// clients wait for a join; older Realtime delays refusals by 5 s.
	Timeout time.Duration
	// Total bounds the whole visit. Default 60 s.
	Total time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Lookup resolves a host. Default: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// RootCAs verify the server's certificate. Default: the system's.
	RootCAs *x509.CertPool
}

// Status is the outcome of one check.
type Status string

// Outcomes, from good to bad. Skip is a check that was not asked for or could
// not run.
const (
	OK   Status = "ok"
	Skip Status = "skip"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Confidence is how sure a finding's cause is.
type Confidence string

// Confidences, of findings that fail or warn.
const (
	// Certain: it was seen as such, or the same thing works with one part changed.
	Certain Confidence = "certain"
	// Likely: what came back fits this cause, and hardly another.
	Likely Confidence = "likely"
	// Possible: one of several causes, or it hinders some clients, at times.
	Possible Confidence = "possible"
)

// Hop is one step of the way.
type Hop string

// Hops, in the order in which they are checked.
const (
	HopURL       Hop = "url"
	HopKey       Hop = "key"
	HopDNS       Hop = "dns"
	HopTCP       Hop = "tcp"
	HopTLS       Hop = "tls"
	HopGateway   Hop = "gateway"
	HopCORS      Hop = "cors"
	HopREST      Hop = "rest"
	HopSocket    Hop = "socket"
	HopVersions  Hop = "versions"
	HopCookies   Hop = "cookies"
	HopSignIn    Hop = "sign-in"
	HopToken     Hop = "token"
	HopJoin      Hop = "join"
	HopUserJoin  Hop = "join as user"
	HopRefresh   Hop = "access_token"
	HopRejoin    Hop = "rejoin"
	HopBroadcast Hop = "broadcast"
	HopHTTPSend  Hop = "http broadcast"
	HopPrivate   Hop = "private channel"
	HopDatabase  Hop = "database"
	HopServer    Hop = "server"
	HopTables    Hop = "tables"
	HopSlots     Hop = "slots"
	HopMessages  Hop = "messages"
	HopSubscribe Hop = "subscribe"
	HopChange    Hop = "change"
	HopPage      Hop = "page"
	HopEnv       Hop = "env files"
	HopClient    Hop = "client"
)

// Finding is what one check found.
type Finding struct {
	// Code is a refusal's code where there is one (refusal.go), else one of this
	// package; empty when all is well.
	Code sluice.Code `json:"code,omitempty"`
	// Rule numbers the known cause (docs/doctor.md); 0 when it has no number.
	Rule   int    `json:"rule,omitempty"`
	Hop    Hop    `json:"hop"`
	Status Status `json:"status"`
	Text   string `json:"text"`
	// Confidence is empty where nothing fails or warns.
	Confidence Confidence `json:"confidence,omitempty"`
	// Evidence is what was sent and what came back, redacted.
	Evidence string `json:"evidence,omitempty"`
	// Remedy is how to mend it: a command, SQL or a setting.
	Remedy string `json:"remedy,omitempty"`
	// Fix is SQL that mends it and changes nobody's rights: what Mend runs. Not
	// redacted, as it holds names alone; empty where a person has to decide.
	Fix string `json:"fix,omitempty"`
	// Link leads to a public thread about the cause.
	Link string `json:"link,omitempty"`
}

// Report is the outcome of a visit.
type Report struct {
	URL      string    `json:"url"`
	Findings []Finding `json:"findings"`
}

// First returns the first finding that fails, or nil: the hop to mend first.
func (r *Report) First() *Finding {
	for i := range r.Findings {
		if r.Findings[i].Status == Fail {
			return &r.Findings[i]
		}
	}
	return nil
}

// visit is one run of the checks.
type visit struct {
	// fixed after newVisit
	cfg    Config
	base   *url.URL // without trailing slash
	hide   *redactor
	badURL []Finding // what is wrong with cfg.URL
	began  time.Time

	// written by the hop that finds it out
	blocked   map[Hop]bool // failed, or behind one that has
	addrs     []netip.Addr
	socketOK  bool
	noTenant  bool // Realtime does not know its tenant
	userToken sluice.Secret
	userRole  string
	joined    *channel // of the join hop, closed by Check
	listening *channel // to the table of the write probe
	db        *catalog // what the database says; nil without one
}

// step is one hop: what has to be passable before it, and its check.
type step struct {
	hop   Hop
	needs Hop
	check func(*visit, context.Context) []Finding
}

// steps is the order of the visit: the way of a client's message, cheap before
// dear.
var steps = []step{
	{HopURL, "", (*visit).checkURL},
	{HopKey, "", (*visit).checkKey},
	{HopDNS, HopURL, (*visit).checkDNS},
	{HopTCP, HopDNS, (*visit).checkTCP},
	{HopTLS, HopTCP, (*visit).checkTLS},
	{HopGateway, HopTLS, (*visit).checkGateway},
	{HopCORS, HopGateway, (*visit).checkCORS},
	{HopREST, HopGateway, (*visit).checkREST},
	{HopSocket, HopGateway, (*visit).checkSocket},
	{HopVersions, HopSocket, (*visit).checkVersions},
	{HopCookies, HopSocket, (*visit).checkCookies},
	{HopSignIn, HopGateway, (*visit).checkSignIn},
	{HopToken, HopSignIn, (*visit).checkToken},
	{HopJoin, HopSocket, (*visit).checkJoin},
	{HopUserJoin, HopJoin, (*visit).checkUserJoin},
	{HopRefresh, HopJoin, (*visit).checkRefresh},
	{HopRejoin, HopRefresh, (*visit).checkRejoin},
	{HopBroadcast, HopRejoin, (*visit).checkBroadcast},
	{HopHTTPSend, HopRejoin, (*visit).checkHTTPBroadcast},
	{HopPrivate, HopJoin, (*visit).checkPrivate},
	{HopServer, HopGateway, (*visit).checkServer},
	{HopDatabase, "", (*visit).checkDatabase},
	{HopTables, HopDatabase, (*visit).checkTables},
	{HopSlots, HopDatabase, (*visit).checkSlots},
	{HopMessages, HopDatabase, (*visit).checkMessages},
	{HopSubscribe, HopJoin, (*visit).checkSubscribe},
	{HopChange, HopSubscribe, (*visit).checkChange},
	{HopPage, HopURL, (*visit).checkPage},
	{HopEnv, HopURL, (*visit).checkEnv},
	{HopClient, "", (*visit).checkClient},
}

// Check visits every hop and reports. The error is about cfg alone.
func Check(ctx context.Context, cfg Config) (*Report, error) {
	v, err := newVisit(cfg, true)
	if err != nil {
		return nil, err
	}
	return v.report(ctx, steps), nil
}

// CheckPage asks of cfg.Page alone whether it may connect to cfg.URL. The
// project is not visited, and no key is needed. A page that cannot be loaded is
// a warning of code CodePage.
func CheckPage(ctx context.Context, cfg Config) (*Report, error) {
	v, err := newVisit(cfg, false)
	if err != nil {
		return nil, err
	}
	return v.report(ctx, []step{{HopURL, "", (*visit).checkURL}, {HopPage, HopURL, (*visit).checkPage}}), nil
}

// report goes through steps in their order.
func (v *visit) report(ctx context.Context, steps []step) *Report {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.Total)
	defer cancel()
	defer v.close()
	report := &Report{URL: v.hide.text(v.cfg.URL)}
	for _, s := range steps {
		findings := v.take(ctx, s)
		for _, f := range findings {
			f.Hop = s.hop
			report.Findings = append(report.Findings, v.hide.finding(f))
		}
	}
	report.causeFirst()
	return report
}

// causeFirst puts what the database says of Realtime's tenants before the refusal
// that comes of it: a handshake shows only that there is none. A key without the
// form of one is the cause of its refusal.
func (r *Report) causeFirst() {
	is := func(f Finding) bool { return f.Hop == HopDatabase && f.Code == CodeTenantNotFound }
	cause, symptom := slices.IndexFunc(r.Findings, is), slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Status == Fail })
	if symptom >= 0 {
		if code := r.Findings[symptom].Code; code == sluice.CodeInvalidAPIKey || code == CodeKeyNotTranslated {
			r.blameForm()
		}
	}
	if cause <= symptom {
		return
	}
	if code := r.Findings[symptom].Code; code == CodeTenantNotFound || code == CodeSocketRefused {
		f := r.Findings[cause]
		r.Findings = slices.Insert(slices.Delete(r.Findings, cause, cause+1), symptom, f)
	}
}

// blameForm makes a failure of the warning about the key's form.
func (r *Report) blameForm() {
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Hop == HopKey && f.Code == sluice.CodeInvalidAPIKey {
			f.Status = Fail
		}
	}
}

// take runs one step, unless the way to it is blocked.
func (v *visit) take(ctx context.Context, s step) []Finding {
	switch {
	case v.blocked[s.needs]:
		v.blocked[s.hop] = true
		return []Finding{skip("not reached: %s does not pass", s.needs)}
	case ctx.Err() != nil:
		v.blocked[s.hop] = true
		return []Finding{skip("not reached: the time for the whole visit is over")}
	}
	findings := s.check(v, ctx)
	for _, f := range findings {
		if f.Status == Fail {
			v.blocked[s.hop] = true
		}
	}
	return findings
}

func (v *visit) close() {
	for _, ch := range []*channel{v.joined, v.listening} {
		if ch != nil {
			ch.close()
		}
	}
}

// newVisit checks cfg and fills in its defaults. All mistakes are reported at
// once.
func newVisit(cfg Config, needsKey bool) (*visit, error) {
	var mistakes []error
	u, err := url.Parse(strings.TrimSpace(cfg.URL))
	if err != nil || u.Host == "" {
		// The parser's error quotes the URL, which may hold a password.
		mistakes = append(mistakes, errors.New("the project URL must have the form http://127.0.0.1:54321 or https://REF.supabase.co"))
		u = &url.URL{}
	}
	if cfg.Key == "" && needsKey {
		mistakes = append(mistakes, errors.New("an API key is needed: the one that the app gives to createClient"))
	}
	if (cfg.Email == "") != (cfg.Password == "") {
		mistakes = append(mistakes, errors.New("email and password belong together"))
	}
	if cfg.WriteProbe != nil {
		var row map[string]json.RawMessage
		if json.Unmarshal(cfg.WriteProbe, &row) != nil || row == nil || len(cfg.Tables) != 1 {
			mistakes = append(mistakes, errors.New("a write probe is a row as a JSON object, and needs exactly one table to go to"))
		}
	}
	if cfg.Page != "" {
		if p, err := url.Parse(cfg.Page); err != nil || p.Host == "" || p.Scheme != "http" && p.Scheme != "https" {
			mistakes = append(mistakes, errors.New("the page must be an http or https URL"))
		}
	}
	if cfg.Project != "" {
		if fi, err := os.Stat(cfg.Project); err != nil || !fi.IsDir() {
			mistakes = append(mistakes, fmt.Errorf("the project %q is not a folder", cfg.Project))
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, fmt.Errorf("%w: %w", sluice.ErrInvalid, err)
	}
	withDefaults(&cfg, u)
	v := &visit{cfg: cfg, blocked: map[Hop]bool{}, hide: newRedactor(cfg), began: cfg.Now()}
	v.base, v.badURL = judgeURL(u)
	return v, nil
}

func withDefaults(cfg *Config, u *url.URL) {
	cfg.Key = sluice.Secret(strings.TrimSpace(string(cfg.Key)))
	if cfg.VSN == "" {
		cfg.VSN = "2.0.0"
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Total <= 0 {
		cfg.Total = time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Lookup == nil {
		cfg.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	// A stack with another opaque key may well have another secret.
	if cfg.LegacyKey == "" && isLoopback(u.Hostname()) && (cfg.Key == token.DevPublishableKey || !token.IsOpaque(string(cfg.Key))) {
		cfg.LegacyKey = sluice.Secret(token.LegacyKey(token.DevJWTSecret, "anon"))
	}
}

// isLoopback tells names and addresses that mean "this machine".
func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && (a.IsLoopback() || a.IsUnspecified())
}
