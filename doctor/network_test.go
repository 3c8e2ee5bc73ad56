package doctor_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/internal/standin"
)

func TestConfigMistakes(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]doctor.Config{
		"no URL":         {Key: publishable},
		"no host":        {URL: "127.0.0.1:54321", Key: publishable},
		"no key":         {URL: "http://127.0.0.1:54321"},
		"half a user":    {URL: "http://127.0.0.1:54321", Key: publishable, Email: "a@b.c"},
		"probe no table": {URL: "http://127.0.0.1:54321", Key: publishable, WriteProbe: []byte(`{}`)},
		"probe no row":   {URL: "http://127.0.0.1:54321", Key: publishable, WriteProbe: []byte(`[1]`), Tables: []string{"a"}},
		"no folder":      {URL: "http://127.0.0.1:54321", Key: publishable, Project: "/nowhere/at/all"},
		"page":           {URL: "http://127.0.0.1:54321", Key: publishable, Page: "localhost:3000"},
	} {
		if _, err := doctor.Check(context.Background(), cfg); !errors.Is(err, sluice.ErrInvalid) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

// spec: doctor:6
func TestNotAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for key, fix := range map[string]string{
		"625729a08b95bf1b7ff351a663f3a23c":                                 "S3 access key",
		"850181e4652dd023b7a98c58ae0d2d34bd487ee0cc3254aed6eda37307425907": "S3 secret key",
		"super-secret-jwt-token-with-at-least-32-characters-long":          "JWT secret",
		"hunter2-hunter2": "publishable key",
		"undefined":       "Set the environment variable",
	} {
		r := visit(t, doctor.Config{URL: w.URL, Key: sluice.Secret(key)})
		wantFirst(t, r, doctor.HopKey, sluice.CodeNotAnAPIKey, 6, fix)
	}
}

func TestKeyForms(t *testing.T) {
	t.Parallel()
	hosted := forged(`{"alg":"HS256"}`, `{"role":"anon","ref":"abcdefghijklmnopqrst","exp":4102444800}`)
	none := func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	r := visit(t, doctor.Config{URL: "https://zyxwvutsrqponmlkjihg.supabase.co", Key: sluice.Secret(hosted), Lookup: none})
	wantFirst(t, r, doctor.HopKey, doctor.CodeWrongProject, 0, "the project abcdefghijklmnopqrst, the URL to zyxwvutsrqponmlkjihg", "same project")
	wantFinding(t, at(t, r, doctor.HopDNS), doctor.CodeUnknownHost, 0, "paused or deleted")

	w := newWorld(t)
	expired := forged(`{"alg":"HS256"}`, `{"role":"anon","exp":1700000000}`)
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, Key: sluice.Secret(expired)}), doctor.HopKey, sluice.CodeInvalidJWTToken, 17, "2023-11-14", "publishable key, which does not expire")
	bare := forged(`{"alg":"HS256"}`, `{"role":"anon"}`)
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, Key: sluice.Secret(bare)}), doctor.HopKey, sluice.CodeInvalidJWTToken, 17, "without role or exp", "supabase status -o env")
	user := forged(`{"alg":"HS256"}`, `{"role":"authenticated","exp":4102444800}`)
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, Key: sluice.Secret(user)}), doctor.HopKey, sluice.CodeNotAnAPIKey, 6, "--token")
	for _, secret := range []string{"sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz", forged(`{"alg":"HS256"}`, `{"role":"service_role","exp":4102444800}`)} {
		f := at(t, visit(t, doctor.Config{URL: w.URL, Key: sluice.Secret(secret)}), doctor.HopKey)
		wantFinding(t, f, doctor.CodeSecretInBrowser, 0, "publishable key")
	}
	cut := at(t, visit(t, doctor.Config{URL: w.URL, Key: sluice.Secret(publishable[:30])}), doctor.HopKey)
	wantFinding(t, cut, sluice.CodeInvalidAPIKey, 0, "may be cut off")
}

// spec: doctor:24
func TestWrongPort(t *testing.T) {
	t.Parallel()
	html := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>My dev server</title>")
	}))
	t.Cleanup(html.Close)
	wantFirst(t, visit(t, doctor.Config{URL: html.URL}), doctor.HopGateway, doctor.CodeWrongPort, 24, "My dev server", "API_URL")

	// A Realtime without Auth beside it is no wrong port.
	w := newWorld(t, func(w *standin.Stack) {
		w.Routes["/auth/"] = func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(404) }
	})
	r := visit(t, doctor.Config{URL: w.URL})
	wantFinding(t, at(t, r, doctor.HopGateway), doctor.CodeServiceDown, 21, "Realtime answers here and Auth does not", "handshake → 101")
	if r.First() != nil {
		t.Errorf("Realtime alone:\n%s", show(r))
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := silent.Addr().String()
	silent.Close()
	wantFirst(t, visit(t, doctor.Config{URL: "http://" + address}), doctor.HopTCP, doctor.CodeUnreachable, 24, "connection refused", "sluice start")

	// PostgreSQL's port: an answer that is not HTTP.
	raw := listen(t, func(c net.Conn) { io.WriteString(c, "E\x00\x00\x00\x09SFATAL\x00\r\n\r\n") })
	wantFirst(t, visit(t, doctor.Config{URL: "http://" + raw}), doctor.HopGateway, doctor.CodeWrongPort, 24, "54322")
}

// listen serves raw connections until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestHang(t *testing.T) {
	t.Parallel()
	t.Run("gateway", func(t *testing.T) {
		stop := make(chan struct{})
		address := listen(t, func(net.Conn) { <-stop })
		t.Cleanup(func() { close(stop) })
		r := visit(t, doctor.Config{URL: "http://" + address, Timeout: impatient})
		wantFirst(t, r, doctor.HopGateway, doctor.CodeTimeout, 0, "no answer within "+impatient.String(), "restart the stack")
	})
	t.Run("socket", func(t *testing.T) {
		stop := make(chan struct{})
		w := newWorld(t, func(w *standin.Stack) {
			w.Admit = func(http.ResponseWriter, *http.Request) bool { <-stop; return true }
		})
		t.Cleanup(func() { close(stop) })
		r := visit(t, doctor.Config{URL: w.URL, Timeout: impatient})
		wantFirst(t, r, doctor.HopSocket, doctor.CodeTimeout, 0, "upgrade /realtime/v1/websocket")
	})
	t.Run("join", func(t *testing.T) {
		w := newWorld(t, func(w *standin.Stack) {
			w.Receive = func(_ *standin.Conn, m standin.Message) bool { return m.Event == "phx_join" }
		})
		r := visit(t, doctor.Config{URL: w.URL, Timeout: impatient})
		wantFirst(t, r, doctor.HopJoin, doctor.CodeNoReply, 0, "TIMED_OUT", "Realtime's log")
	})
	t.Run("whole visit", func(t *testing.T) {
		stop := make(chan struct{})
		address := listen(t, func(net.Conn) { <-stop })
		t.Cleanup(func() { close(stop) })
		r := visit(t, doctor.Config{URL: "http://" + address, Total: impatient, Project: t.TempDir()})
		if f := at(t, r, doctor.HopEnv); f.Status != doctor.Skip || !strings.Contains(f.Text, "time") {
			t.Errorf("a hop behind the time limit: %+v", f)
		}
	})
}

func TestNames(t *testing.T) {
	t.Parallel()
	none := func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	r := visit(t, doctor.Config{URL: "http://kong:8000", Lookup: none})
	wantFirst(t, r, doctor.HopDNS, doctor.CodeUnknownHost, 0, "inside of a container network", "http://127.0.0.1:54321")
	for _, hop := range []doctor.Hop{doctor.HopTCP, doctor.HopSocket, doctor.HopJoin} {
		if f := at(t, r, hop); f.Status != doctor.Skip {
			t.Errorf("%s was tried without an address: %+v", hop, f)
		}
	}
	// One of two addresses does not answer.
	w := newWorld(t)
	u, _ := url.Parse(w.URL)
	both := func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	f := at(t, visit(t, doctor.Config{URL: "http://localhost:" + u.Port(), Lookup: both}), doctor.HopTCP)
	wantFinding(t, f, doctor.CodeOneFamily, 19, "127.0.0.1 in place of localhost")
}

func TestTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := httptest.NewUnstartedServer(w)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)

	wantFirst(t, visit(t, doctor.Config{URL: s.URL}), doctor.HopTLS, doctor.CodeTLS, 0, "signed by nobody that this machine trusts", "Browsers open no wss")
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	if r := visit(t, doctor.Config{URL: s.URL, RootCAs: roots}); r.First() != nil {
		t.Errorf("with a trusted certificate:\n%s", show(r))
	}
	u, _ := url.Parse(s.URL)
	here := func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	wantFirst(t, visit(t, doctor.Config{URL: "https://localhost:" + u.Port(), RootCAs: roots, Lookup: here}), doctor.HopTLS, doctor.CodeTLS, 0, "get one for localhost")
	// The schemes crossed.
	plain, _ := url.Parse(w.URL)
	wantFirst(t, visit(t, doctor.Config{URL: "https://" + plain.Host}), doctor.HopTLS, doctor.CodeTLS, 0, "plain HTTP", "Use http://"+plain.Host)
	wantFirst(t, visit(t, doctor.Config{URL: "http://" + u.Host}), doctor.HopGateway, doctor.CodeTLS, 0, "speaks TLS", "Use https://"+u.Host)
}

// A redirect is a finding; nobody else gets the key.
func TestRedirect(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Header.Get("Apikey") }))
	t.Cleanup(thief.Close)
	w := newWorld(t, func(w *standin.Stack) {
		w.Routes["/"] = func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, thief.URL+r.URL.Path, http.StatusFound)
		}
	})
	r := visit(t, doctor.Config{URL: w.URL, Email: "a@b.c", Password: "a long password"})
	wantFirst(t, r, doctor.HopGateway, doctor.CodeRedirect, 0, "not followed", thief.URL)
	select {
	case key := <-asked:
		t.Errorf("the redirect was followed, with key %q", key)
	default:
	}
	// On the socket's route alone.
	w = newWorld(t, func(w *standin.Stack) {
		w.Admit = func(rw http.ResponseWriter, r *http.Request) bool {
			http.Redirect(rw, r, "https://"+r.Host+r.URL.Path, http.StatusMovedPermanently)
			return true
		}
	})
	u, _ := url.Parse(w.URL)
	wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, doctor.CodeRedirect, 0, "Use https://"+u.Hostname())
}

func TestClockAndCORS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := visit(t, doctor.Config{URL: w.URL, Now: func() time.Time { return time.Now().Add(time.Hour) }})
	wantFinding(t, at(t, r, doctor.HopGateway), doctor.CodeClockSkew, 0, "1h0m", "time from the network")
	w = newWorld(t, func(w *standin.Stack) {
		w.Routes["/rest/v1/"] = func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Del("Access-Control-Allow-Origin")
			rw.WriteHeader(404)
		}
	})
	wantFinding(t, at(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopCORS), doctor.CodeCORS, 0, "preflight", "OPTIONS")
}
