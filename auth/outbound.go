package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// maxFetch bounds the answer of another server, in bytes.
	maxFetch = 1 << 20
	// fetchTime bounds one request to another server.
	fetchTime = 10 * time.Second
)

var (
	errFetchScheme  = errors.New("the address is not https")
	errFetchAddress = errors.New("the address is not a public one")
	errFetchSize    = fmt.Errorf("the answer is longer than %d bytes", maxFetch)
)

// outbound returns the client for requests to other servers. They go by https, to
// public addresses, and are redirected within a host alone: what a document of another
// server names must not lead into the network that we stand in. hosts are those that
// the project's settings name: they may be private, and those on this machine may be
// asked by http. There is no proxy; it would resolve names in our place.
func outbound(hosts ...string) *http.Client {
	f := &fetcher{hosts: hosts}
	f.next = &http.Transport{
		DialContext: f.dial, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 4,
		IdleConnTimeout: time.Minute, TLSHandshakeTimeout: fetchTime,
	}
	return &http.Client{
		Transport: f, Timeout: fetchTime,
		CheckRedirect: sameHost,
	}
}

// sameHost follows a page that has moved within its host. What is sent is not sent
// again.
func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0]
	if first.Method != http.MethodGet || r.URL.Host != first.URL.Host || r.URL.Scheme != first.URL.Scheme || len(via) > 3 {
		return http.ErrUseLastResponse
	}
	return nil
}

// hostOf is the host name of a URL, empty for what is none.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

type fetcher struct {
	hosts []string
	next  http.RoundTripper
}

func (f *fetcher) named(host string) bool {
	return slices.ContainsFunc(f.hosts, func(h string) bool { return h != "" && strings.EqualFold(h, host) })
}

// RoundTrip refuses what is neither https nor on this machine, and bounds the answer.
func (f *fetcher) RoundTrip(r *http.Request) (*http.Response, error) {
	host := r.URL.Hostname()
	if r.URL.Scheme != "https" && (r.URL.Scheme != "http" || !isLoopback(host) || !f.named(host)) {
		return nil, errFetchScheme
	}
	res, err := f.next.RoundTrip(r)
	if err == nil {
		res.Body = &boundedBody{res.Body, maxFetch}
	}
	return res, err
}

// dial looks at the address after the name was resolved, when it cannot change any more.
func (f *fetcher) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	trusted := f.named(host)
	d := net.Dialer{Timeout: fetchTime, Control: func(_, resolved string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(resolved)
		if err != nil || !mayFetch(at.Addr(), trusted) {
			return errFetchAddress
		}
		return nil
	}}
	return d.DialContext(ctx, network, address)
}

// private are networks that are not the Internet's, besides those that netip knows.
var private = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

// mayFetch decides about an address. The link's own are where clouds tell their
// machines' secrets: nobody names those.
func mayFetch(a netip.Addr, trusted bool) bool {
	a = a.Unmap()
	switch {
	case a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a == netip.MustParseAddr("fd00:ec2::254"):
		return false
	case trusted:
		return true
	case a.IsLoopback(), a.IsPrivate():
		return false
	}
	return !slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(a) })
}

// boundedBody fails where a longer answer would be read.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// The end is no error, whatever comes before it.
		if n, err := b.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, errFetchSize
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
