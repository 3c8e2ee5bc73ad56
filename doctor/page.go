package doctor

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-dev/sluice"
)

func originOf(page string) string {
	u, err := url.Parse(page)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// document is a fetched page and the policies that are in force on it.
type document struct {
	url        *url.URL // after redirects
	policies   []policy
	reportOnly []policy
}

var (
	metaTag     = regexp.MustCompile(`(?is)<meta\s[^>]*>`)
	metaIsCSP   = regexp.MustCompile(`(?is)http-equiv\s*=\s*["']?content-security-policy["'\s>/]`)
	metaContent = regexp.MustCompile(`(?is)\scontent\s*=\s*(?:"([^"]*)"|'([^']*)')`)
)

// fetchPage loads the app's page as a browser does; the key does not go along.
func (v *visit) fetchPage(ctx context.Context) (*document, *answer, error) {
	ctx, cancel := v.within(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.cfg.Page, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "text/html")
	req.Header.Set("User-Agent", "Mozilla/5.0 (compatible; sluice-doctor)")
	at := req.URL
	tlsConfig := v.tlsConfig()
	tlsConfig.ServerName = "" // the page's own
	client := http.Client{
		Transport: transport(tlsConfig),
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			at = r.URL
			if len(via) >= 10 {
				return errors.New("more than 10 redirects")
			}
			return nil
		},
	}
	a, err := v.do(&client, req, "GET "+withoutSecrets(req.URL))
	if err != nil {
		return nil, nil, err
	}
	return newDocument(at, a), a, nil
}

func newDocument(at *url.URL, a *answer) *document {
	d := &document{url: at}
	for _, value := range a.header.Values("Content-Security-Policy") {
		d.policies = append(d.policies, parsePolicies(value)...)
	}
	for _, value := range a.header.Values("Content-Security-Policy-Report-Only") {
		d.reportOnly = append(d.reportOnly, parsePolicies(value)...)
	}
	for _, tag := range metaTag.FindAll(a.body, -1) {
		m := metaContent.FindSubmatch(tag)
		if m == nil || !metaIsCSP.Match(tag) {
			continue
		}
		d.policies = append(d.policies, parsePolicies(html.UnescapeString(string(m[1])+string(m[2])))...)
	}
	return d
}

// checkPage loads the app's page and asks whether it may talk to the project.
func (v *visit) checkPage(ctx context.Context) []Finding {
	if v.cfg.Page == "" {
		return []Finding{skip("no page was given (--page)")}
	}
	d, a, err := v.fetchPage(ctx)
	switch {
	case err != nil:
		return []Finding{warn(CodePage, "The page cannot be loaded").evidence("%v", err).remedy("Start the app, and compare the address.")}
	case a.status >= 400:
		return []Finding{warn(CodePage, "The page answers with status %d", a.status).evidence("%s", a).remedy("Give the address of a page that subscribes.")}
	}
	findings := d.judge(v.base)
	if f := v.judgeCookies(ctx, d, a); f != nil {
		findings = append([]Finding{*f}, findings...)
	}
	return findings
}

// minSession is the length of the shortest cookie, in bytes, that may be a session.
const minSession = 16

// judgeCookies makes the handshake with the cookies that the page sets, as a
// browser does when page and project are on one host: to cookies, ports are one.
func (v *visit) judgeCookies(ctx context.Context, d *document, a *answer) *Finding {
	var pairs []string
	for _, line := range a.header.Values("Set-Cookie") {
		c, err := http.ParseSetCookie(line)
		if err != nil || c.MaxAge < 0 {
			continue
		}
		if len(c.Value) >= minSession { // shorter ones are words, such as a theme's
			v.hide.add(sluice.Secret(c.Value))
		}
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	if len(pairs) == 0 || !v.socketOK || !strings.EqualFold(d.url.Hostname(), v.base.Hostname()) {
		return nil
	}
	cookie := strings.Join(pairs, "; ")
	refused := v.try(ctx, handshake{key: v.cfg.Key, vsn: v.cfg.VSN, cookie: cookie})
	if opened(refused) {
		return nil
	}
	f := fail(CodeCookiesTooLarge, "The handshake fails with the cookies that %s sets", withoutSecrets(d.url)).
		evidence("%d cookies of %d bytes → %s; without → 101", len(pairs), len(cookie), statusOf(refused))
	f = tooLarge(f)
	return &f
}

// judge compares the page with the project's address.
func (d *document) judge(project *url.URL) []Finding {
	var findings []Finding
	for _, f := range []*Finding{d.judgeHost(project), d.judgeMixed(project), d.judgeUpgrade(project), d.judgePolicy(project, true), d.judgePolicy(project, false)} {
		if f != nil {
			findings = append(findings, *f)
		}
	}
	switch {
	case len(findings) > 0:
	case len(d.policies) == 0:
		findings = []Finding{ok("%s has no Content-Security-Policy", withoutSecrets(d.url))}
	default:
		findings = []Finding{ok("%s may connect to the project and its socket", withoutSecrets(d.url))}
	}
	return findings
}

// judgeHost: a page that other devices can open must not send them to
// themselves.
func (d *document) judgeHost(project *url.URL) *Finding {
	if isLoopback(d.url.Hostname()) || !isLoopback(project.Hostname()) {
		return nil
	}
	f := fail(CodeLoopbackHost, "The page is on %s and the project on %s: on any other device, %s is the device itself", d.url.Host, project.Host, project.Hostname()).evidence("the page is %s, the project %s", originOf(d.url.String()), project).
		remedy("Give createClient an address that the device reaches: %s://%s:%s for devices in the network, 10.0.2.2 for an Android emulator; set [api] external_url to the same.", project.Scheme, d.url.Hostname(), portOf(project))
	return &f
}

// judgeMixed: a secure page and a plain project.
func (d *document) judgeMixed(project *url.URL) *Finding {
	if d.url.Scheme != "https" || project.Scheme != "http" {
		return nil
	}
	evidence := fmt.Sprintf("the page is %s://%s, the socket ws://%s", d.url.Scheme, d.url.Host, project.Host)
	var f Finding
	if isLoopback(project.Hostname()) {
		f = warn(CodeMixedContent, "Safari blocks ws:// from an https page, also to this machine; Chromium and Firefox allow it here").evidence("%s", evidence).
			remedy("For Safari, serve the API with TLS ([api.tls] enabled = true), or the page over http in development.")
	} else {
		f = fail(CodeMixedContent, "An https page may not open ws:// to another machine: browsers block it as mixed content").evidence("%s", evidence).
			byRule(0, "").remedy("Serve the API with TLS and use https:// as project URL.")
	}
	return &f
}

// judgeUpgrade: a directive that turns ws into wss.
func (d *document) judgeUpgrade(project *url.URL) *Finding {
	has := slices.ContainsFunc(d.policies, func(p policy) bool { _, has := p["upgrade-insecure-requests"]; return has })
	if !has || project.Scheme != "http" {
		return nil
	}
	evidence := fmt.Sprintf("the policy of %s holds the directive; the socket is ws://%s", withoutSecrets(d.url), project.Host)
	remedy := "Leave upgrade-insecure-requests out of the policy in development."
	var f Finding
	if isLoopback(project.Hostname()) {
		f = warn(CodeUpgradeInsecure, "The page's policy has upgrade-insecure-requests: Safari turns ws://%s into wss, which fails; Chromium and Firefox leave this machine's addresses alone", project.Host).remedy("%s", remedy)
	} else {
		f = fail(CodeUpgradeInsecure, "The page's policy has upgrade-insecure-requests: browsers turn ws://%s into wss, which fails", project.Host).remedy("%s Or serve the API with TLS.", remedy)
	}
	f = f.evidence("%s", evidence)
	return &f
}

// judgePolicy evaluates the policies for the socket or for REST.
func (d *document) judgePolicy(project *url.URL, isSocket bool) *Finding {
	target := *project
	what := "REST and Auth"
	target.Path = project.Path + "/rest/v1/"
	if isSocket {
		what = "the socket"
		target.Scheme, target.Path = socketScheme(project.Scheme), project.Path+socketPath
	}
	blocking := func(policies []policy, e engine) *policy {
		for _, p := range policies {
			if !p.allows(d.url, &target, e) {
				return &p
			}
		}
		return nil
	}
	origin := target.Scheme + "://" + target.Host
	var f Finding
	var p *policy
	switch {
	case blocking(d.policies, modern) != nil:
		p = blocking(d.policies, modern)
		f = fail(CodeCSP, "The page's Content-Security-Policy blocks %s: %s is in none of its sources", what, origin)
	case blocking(d.policies, webKit) != nil:
		p = blocking(d.policies, webKit)
		f = warn(CodeCSP, "The page's Content-Security-Policy blocks %s in Safari", what)
	case blocking(d.policies, oldSafari) != nil:
		p = blocking(d.policies, oldSafari)
		f = warn(CodeCSP, "The page's Content-Security-Policy blocks %s in Safari before 15.4, where 'self' does not cover sockets", what)
	case blocking(d.reportOnly, modern) != nil:
		p = blocking(d.reportOnly, modern)
		f = warn(CodeCSP, "The page's report-only policy would block %s", what).sure(Possible)
	default:
		return nil
	}
	name, sources, _ := p.connect()
	f = f.evidence("%s %s", name, strings.Join(sources, " ")).
		remedy("Add %s to connect-src: connect-src 'self' %s", origin, strings.Join(ConnectSources(project), " "))
	if alias := loopbackAlias(target.Hostname()); alias != "" && slices.ContainsFunc(sources, func(s string) bool {
		return strings.HasPrefix(s, target.Scheme+"://"+alias)
	}) {
		f = f.remedy("The policy lists %s and the project URL says %s: to a browser these are two hosts. Write the same one in both, or list both: connect-src 'self' %s", alias, target.Hostname(), strings.Join(ConnectSources(project), " "))
	}
	return &f
}
