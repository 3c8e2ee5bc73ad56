package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
)

func (v *visit) port() string {
	switch {
	case v.base.Port() != "":
		return v.base.Port()
	case v.base.Scheme == "https":
		return "443"
	}
	return "80"
}

// within bounds one wait for the network.
func (v *visit) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, v.cfg.Timeout)
}

// timedOut tells a wait that was too long from a refusal.
func timedOut(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// containerNames resolve inside of a container network only.
var containerNames = []string{"kong", "realtime", "realtime-dev", "gotrue", "auth", "rest", "db", "host.docker.internal"}

func (v *visit) checkDNS(ctx context.Context) []Finding {
	host := v.base.Hostname()
	if a, err := netip.ParseAddr(host); err == nil {
		v.addrs = []netip.Addr{a}
		return []Finding{ok("%s is an address", host)}
	}
	ctx, cancel := v.within(ctx)
	defer cancel()
	addrs, err := v.cfg.Lookup(ctx, host)
	if err == nil && len(addrs) > 0 {
		for _, a := range addrs {
			v.addrs = append(v.addrs, a.Unmap())
		}
		return []Finding{ok("%s is %s", host, joinAddrs(v.addrs))}
	}
	f := fail(CodeUnknownHost, "The name %s cannot be resolved", host).evidence("look up %s: %v", host, err).
		remedy("Compare the host with the project's URL, and look at this machine's network and DNS.")
	for _, name := range containerNames {
		if host == name || strings.HasPrefix(host, "supabase_") {
			return []Finding{f.remedy("%s is a name inside of a container network. A browser needs the published address, such as http://127.0.0.1:54321; keep the inner name for code that runs in a container.", host)}
		}
	}
	if strings.HasSuffix(host, ".supabase.co") {
		f = f.remedy("The project may be paused or deleted, or its reference misspelled: open it in the dashboard and copy the URL from there.")
	}
	return []Finding{f}
}

func joinAddrs(addrs []netip.Addr) string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return strings.Join(out, ", ")
}

// maxAddrs bounds how many of a host's addresses are tried.
const maxAddrs = 6

// checkTCP dials every address: a client may pick any of them.
func (v *visit) checkTCP(ctx context.Context) []Finding {
	var good, bad []string
	var last error
	for _, a := range v.addrs[:min(len(v.addrs), maxAddrs)] {
		target := net.JoinHostPort(a.String(), v.port())
		dial, cancel := v.within(ctx)
		conn, err := (&net.Dialer{}).DialContext(dial, "tcp", target)
		cancel()
		if err != nil {
			last = err
			bad = append(bad, fmt.Sprintf("%s: %v", target, cut(err)))
			continue
		}
		_ = conn.Close()
		good = append(good, target)
	}
	switch {
	case len(good) > 0 && len(bad) == 0:
		return []Finding{ok("connected to %s", strings.Join(good, ", "))}
	case len(good) > 0:
		return []Finding{warn(CodeOneFamily, "%s has an address on which nothing answers: clients that try it first fail or wait", v.base.Hostname()).
			evidence("%s; connected to %s", strings.Join(bad, "; "), strings.Join(good, ", ")).
			remedy("Use the address that answers in the project URL (for example 127.0.0.1 in place of localhost), or let the server listen on both IPv4 and IPv6; in the Supabase CLI's stack that is [realtime] ip_version.")}
	case last == nil:
		return []Finding{skip("no address to connect to")}
	}
	f := fail(CodeUnreachable, "Nothing answers at %s", net.JoinHostPort(v.base.Hostname(), v.port())).evidence("%s", strings.Join(bad, "; "))
	switch {
	case timedOut(last):
		f = f.remedy("A firewall or a wrong host swallows the connection: look at both. From an Android emulator this machine is 10.0.2.2, from a phone its address in the local network.")
	case isLoopback(v.base.Hostname()):
		f = f.remedy("Start the stack (`sluice start` or `supabase start`) and use the API_URL that its status command prints; the port is [api] port in supabase/config.toml.")
	default:
		f = f.remedy("Compare host and port with the project's URL, and look whether the gateway runs.")
	}
	return []Finding{f}
}

// cut shortens a network error to its cause: the target stands before it.
func cut(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("connection refused")
	}
	return err
}

func (v *visit) tlsConfig() *tls.Config {
	return &tls.Config{ServerName: v.base.Hostname(), RootCAs: v.cfg.RootCAs, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
}

// dial opens a connection to the project, with TLS where the URL says so.
func (v *visit) dial(ctx context.Context) (net.Conn, error) {
	target := net.JoinHostPort(v.base.Hostname(), v.port())
	if v.base.Scheme != "https" {
		return (&net.Dialer{}).DialContext(ctx, "tcp", target)
	}
	return (&tls.Dialer{Config: v.tlsConfig()}).DialContext(ctx, "tcp", target)
}

// transport makes connections that read nothing before the request is on its
// way. A server that speaks first, such as a database, is then judged by what it
// says; net/http would log it and report the connection as lost, depending on
// which comes first.
func transport(t *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig:   t,
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &askFirst{Conn: c, asked: make(chan struct{})}, nil
		},
	}
}

// askFirst is a connection whose reads wait for the first write.
type askFirst struct {
	net.Conn
	once  sync.Once
	asked chan struct{} // closed by the first write, or by Close
}

func (c *askFirst) Read(b []byte) (int, error) {
	<-c.asked
	return c.Conn.Read(b)
}

func (c *askFirst) Write(b []byte) (int, error) {
	defer c.once.Do(func() { close(c.asked) })
	return c.Conn.Write(b)
}

func (c *askFirst) Close() error {
	defer c.once.Do(func() { close(c.asked) })
	return c.Conn.Close()
}

func (v *visit) checkTLS(ctx context.Context) []Finding {
	if v.base.Scheme != "https" {
		return []Finding{skip("not used: the URL begins with http")}
	}
	ctx, cancel := v.within(ctx)
	defer cancel()
	conn, err := v.dial(ctx)
	if err == nil {
		defer conn.Close()
		state := conn.(*tls.Conn).ConnectionState()
		return []Finding{ok("%s, certificate for %s", tls.VersionName(state.Version), state.PeerCertificates[0].Subject.CommonName)}
	}
	f := fail(CodeTLS, "The TLS handshake fails, so https and wss do").evidence("TLS to %s: %v", net.JoinHostPort(v.base.Hostname(), v.port()), err)
	var plain tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &plain):
		f.Text = "The port speaks plain HTTP, and the URL says https"
		f = f.remedy("Use http://%s, or switch TLS on: [api.tls] enabled = true in supabase/config.toml.", v.base.Host)
	case errors.As(err, &name):
		f = f.remedy("The certificate is for another name: use a name that stands in it, or get one for %s.", v.base.Hostname())
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		f = f.remedy("The certificate is not valid at this time: renew it, or set this machine's clock.")
	case errors.As(err, &unknown):
		f = f.remedy("The certificate is signed by nobody that this machine trusts: install the issuer's certificate (for a development stack, trust its self-signed one), or send the whole chain. Browsers open no wss on such a certificate and do not ask.")
	case timedOut(err):
		f = f.remedy("The port accepts connections and does not answer TLS: compare the port with the project's URL.")
	default:
		f = f.remedy("Compare scheme and port with the project's URL; a proxy in front must accept TLS with HTTP/1.1.")
	}
	return []Finding{f}
}
