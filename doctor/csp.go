package doctor

import (
	"net/netip"
	"net/url"
	"strings"
)

// ConnectSources returns what a page's connect-src must list for a project: its
// origin for REST and Auth, and the same with ws or wss for the socket. A CSP
// host is literal, so a loopback URL has both of its names.
func ConnectSources(project *url.URL) []string {
	hosts := []string{project.Host}
	if other := loopbackAlias(project.Hostname()); other != "" {
		host := other
		if port := project.Port(); port != "" {
			host += ":" + port
		}
		hosts = append(hosts, host)
	}
	var out []string
	for _, h := range hosts {
		out = append(out, project.Scheme+"://"+h, socketScheme(project.Scheme)+"://"+h)
	}
	return out
}

// loopbackAlias returns the other usual name of this machine, or "".
func loopbackAlias(host string) string {
	switch host {
	case "localhost":
		return "127.0.0.1"
	case "127.0.0.1":
		return "localhost"
	}
	return ""
}

func socketScheme(scheme string) string {
	if scheme == "https" {
		return "wss"
	}
	return "ws"
}

// engine is a family of browsers whose matching of sources differs.
type engine int

const (
	modern    engine = iota // Chromium and Firefox
	webKit                  // Safari
	oldSafari               // up to 15.3: 'self' does not cover sockets
)

// policy is one Content-Security-Policy: its directives by name.
type policy map[string][]string

// parsePolicies reads the value of a header, which may hold several policies
// divided by commas. All of them are in force.
func parsePolicies(value string) []policy {
	var out []policy
	for part := range strings.SplitSeq(value, ",") {
		p := policy{}
		for directive := range strings.SplitSeq(part, ";") {
			words := strings.Fields(directive)
			if len(words) == 0 {
				continue
			}
			name := strings.ToLower(words[0])
			if _, twice := p[name]; !twice { // the first counts
				p[name] = words[1:]
			}
		}
		if len(p) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// connect returns the sources that govern connections, and whether any do.
func (p policy) connect() (name string, sources []string, governed bool) {
	for _, name := range []string{"connect-src", "default-src"} {
		if sources, has := p[name]; has {
			return name, sources, true
		}
	}
	return "", nil, false
}

// allows reports whether a page under this policy may connect to target.
func (p policy) allows(page, target *url.URL, e engine) bool {
	_, sources, governed := p.connect()
	if !governed {
		return true
	}
	for _, s := range sources {
		if sourceAllows(s, page, target, e) {
			return true
		}
	}
	return false
}

// sourceAllows matches one source expression as the engines were measured to do
// (gateway specification E.3): an http or scheme-less source never covers a
// socket, a ws source covers fetch in WebKit alone, 'self' is the page's own
// host and port.
func sourceAllows(source string, page, target *url.URL, e engine) bool {
	isSocket := target.Scheme == "ws" || target.Scheme == "wss"
	switch lower := strings.ToLower(source); {
	case lower == "*":
		return true
	case lower == "'self'":
		return (!isSocket || e != oldSafari) && strings.EqualFold(page.Hostname(), target.Hostname()) &&
			portOf(page) == portOf(target) && schemeCovers(page.Scheme, httpScheme(target.Scheme), e)
	case strings.HasPrefix(lower, "'"):
		return false
	case strings.HasSuffix(lower, ":"):
		return schemeCovers(strings.TrimSuffix(lower, ":"), target.Scheme, e)
	}
	scheme, rest, hasScheme := strings.Cut(source, "://")
	if !hasScheme {
		scheme, rest = page.Scheme, source
	}
	scheme = strings.ToLower(scheme)
	hostPort, path, hasPath := strings.Cut(rest, "/")
	host, port := splitPort(hostPort)
	return schemeCovers(scheme, target.Scheme, e) && hostMatches(host, target.Hostname()) && portMatches(port, target) &&
		(!hasPath || pathMatches("/"+path, target.Path))
}

// schemeCovers: a scheme covers itself and its secure form; WebKit takes the
// ws schemes for the http ones as well.
func schemeCovers(source, target string, e engine) bool {
	if source == target || source == "http" && target == "https" || source == "ws" && target == "wss" {
		return true
	}
	return e != modern && (source == "ws" && (target == "http" || target == "https") || source == "wss" && target == "https")
}

func httpScheme(scheme string) string {
	switch scheme {
	case "ws":
		return "http"
	case "wss":
		return "https"
	}
	return scheme
}

func splitPort(hostPort string) (host, port string) {
	if i := strings.LastIndexByte(hostPort, ':'); i >= 0 && !strings.HasSuffix(hostPort, "]") {
		return hostPort[:i], hostPort[i+1:]
	}
	return hostPort, ""
}

// hostMatches: exact, or the parts below a *. wildcard; addresses have no parts.
func hostMatches(pattern, host string) bool {
	pattern, host = strings.ToLower(strings.Trim(pattern, "[]")), strings.ToLower(host)
	if pattern == "*" {
		return true
	}
	if suffix, wild := strings.CutPrefix(pattern, "*"); wild {
		_, err := netip.ParseAddr(host)
		return err != nil && strings.HasPrefix(suffix, ".") && strings.HasSuffix(host, suffix)
	}
	return pattern == host
}

func portMatches(port string, target *url.URL) bool {
	actual := portOf(target)
	secure := target.Scheme == "https" || target.Scheme == "wss"
	switch port {
	case "*", actual:
		return true
	case "":
		return secure && actual == "443" || !secure && actual == "80"
	}
	return port == "80" && actual == "443" && secure
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https" || u.Scheme == "wss":
		return "443"
	}
	return "80"
}

// pathMatches: a path that ends in a slash is a prefix, any other is exact.
func pathMatches(pattern, path string) bool {
	if strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(path, pattern)
	}
	return pattern == path
}
