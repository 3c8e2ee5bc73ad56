package auth

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// redirects decides where a link in a mail may lead.
type redirects struct {
	site  *url.URL
	globs []*regexp.Regexp
}

// maxRedirect bounds a target, in bytes.
const maxRedirect = 4096

func newRedirects(site string, allowed []string) (*redirects, error) {
	u, err := url.Parse(site)
	if err != nil || u.Scheme == "" {
		return nil, fmt.Errorf("SiteURL %q is not a URL", site)
	}
	rs := &redirects{site: u}
	for _, entry := range allowed {
		glob, err := compileGlob(entry)
		if err != nil {
			return nil, fmt.Errorf("redirect URL %q: %w", entry, err)
		}
		rs.globs = append(rs.globs, glob)
	}
	return rs, nil
}

// redirectTarget returns where to send the user after the link: the first of
// header, parameter and Referer that is allowed, else the site. It is asked when
// the link is written and again when it is followed.
func (s *Server) redirectTarget(r *http.Request) string {
	for _, candidate := range []string{r.Header.Get("redirect_to"), r.URL.Query().Get("redirect_to"), r.Referer()} {
		if candidate != "" && s.redirects.allow(candidate) {
			return candidate
		}
	}
	return s.cfg.SiteURL
}

// allow reports whether target is on the site or on the allow list. What browsers
// and Go might read differently is refused, and so is what runs code.
func (rs *redirects) allow(target string) bool {
	if len(target) > maxRedirect || strings.ContainsRune(target, '\\') {
		return false
	}
	for _, c := range []byte(target) {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	u, err := url.Parse(target)
	if err != nil || u.Scheme == "" || u.User != nil {
		return false
	}
	switch u.Scheme {
	case "javascript", "data", "vbscript", "file", "blob", "about":
		return false
	}
	if rs.onSite(u) {
		return true
	}
	if u.Scheme == "http" || u.Scheme == "https" {
		ip, plain := webHost(u)
		switch {
		case !plain:
			return false
		case ip.IsValid():
			return ip.IsLoopback()
		}
		if u.Path == "" && (u.RawQuery != "" || u.ForceQuery) {
			u.Path = "/" // so that no "*" for a part of the host takes the query for it
		}
	}
	u.Fragment, u.RawFragment = "", ""
	text := u.String()
	for _, glob := range rs.globs {
		if glob.MatchString(text) {
			return true
		}
	}
	return false
}

// onSite compares with the site's scheme, host and port; a developer's machine
// may use any port.
func (rs *redirects) onSite(u *url.URL) bool {
	if u.Host == "" || u.Scheme != rs.site.Scheme || !strings.EqualFold(u.Hostname(), rs.site.Hostname()) {
		return false
	}
	return u.Port() == rs.site.Port() || isLoopback(u.Hostname())
}

func isLoopback(host string) bool {
	host = strings.ToLower(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// webHost returns the address that the host of a web page is written as, if any,
// and whether it is a name or an address in its plain form. Numbers in the ways
// that browsers take for addresses (2130706433, 0x7f.1) are not.
func webHost(u *url.URL) (ip netip.Addr, plain bool) {
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip, ip.Zone() == ""
	}
	for _, c := range []byte(host) {
		if !alphanumeric(c) && c != '-' && c != '.' {
			return netip.Addr{}, false
		}
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	last := strings.ToLower(labels[len(labels)-1])
	return netip.Addr{}, last != "" && strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

// openHost reports whether an entry of the allow list leaves the end of the host
// to the visitor, so that a stranger's site may match.
func openHost(entry string) bool {
	scheme, rest, found := strings.Cut(entry, "://")
	if !found || scheme != "http" && scheme != "https" {
		return false
	}
	host, _, _ := strings.Cut(rest, "/")
	if strings.Contains(host, "**") {
		return true
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	labels := strings.Split(host, ".")
	return strings.ContainsAny(strings.Join(labels[max(0, len(labels)-2):], ""), "*?[{")
}

// landing is target with what an application reads from its address: query as
// additional parameters, fragment as the fragment.
func landing(target string, query, fragment url.Values) string {
	u, err := url.Parse(target)
	if err != nil {
		return target // it was parsed when it was allowed
	}
	if len(query) > 0 {
		q := u.Query()
		for name, value := range query {
			q[name] = value
		}
		u.RawQuery = q.Encode()
	}
	u.Fragment, u.RawFragment = "", ""
	if fragment == nil {
		return u.String()
	}
	return u.String() + "#" + fragment.Encode()
}

// sendTo sends a browser on. The address that it comes from has a token in it,
// which must not travel further.
func sendTo(w http.ResponseWriter, r *http.Request, status int, target string) error {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, target, status)
	return nil
}
