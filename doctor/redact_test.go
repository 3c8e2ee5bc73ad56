package doctor_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/internal/standin"
)

// pieces are what of a secret may not be shown: every eight characters of it,
// but for a key's prefix and a JWT's header, which say nothing.
func pieces(secret string) []string {
	secret = strings.TrimPrefix(secret, "sb_secret_")
	if strings.HasPrefix(secret, "eyJ") {
		_, secret, _ = strings.Cut(secret, ".")
	}
	var out []string
	for i := range len(secret) - 7 {
		out = append(out, secret[i:i+8])
	}
	return out
}

func hides(t *testing.T, what string, r *doctor.Report, secrets ...string) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	shown := string(text) + show(r)
	for _, f := range r.Findings {
		shown += string(f.Code)
	}
	for _, secret := range secrets {
		for _, p := range append(pieces(secret), pieces(url.QueryEscape(secret))...) {
			if strings.Contains(shown, p) {
				t.Errorf("%s: %q of a secret is shown:\n%.3000s", what, p, shown)
				return
			}
		}
	}
}

// A server repeats a secret at every distance from where a report cuts a text, and
// in every place that a report quotes. Not even a part of it may be shown.
func TestEchoedSecrets(t *testing.T) {
	t.Parallel()
	const (
		password = "pass\"word\\with<odd>&chars' 7Kx"
		secret   = "sb_secret_Tz9KvBn4WqXyRm6LpDsF1h_U7jCgE3o"
	)
	tok := userToken(t, 3600e9)
	all := func(n int) string { return strings.Repeat("x", n) + secret + " " + password + " " + tok }
	for place, answer := range map[string]func(w http.ResponseWriter, text string){
		"text":    func(w http.ResponseWriter, text string) { w.WriteHeader(400); io.WriteString(w, text) },
		"quoted":  func(w http.ResponseWriter, text string) { w.WriteHeader(400); fmt.Fprintf(w, "%q", text) },
		"message": func(w http.ResponseWriter, text string) { standin.WriteJSON(w, 400, `{"message":`+mustJSON(text)+`}`) },
		"title": func(w http.ResponseWriter, text string) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(400)
			io.WriteString(w, "<title>"+text+"</title>")
		},
		"server": func(w http.ResponseWriter, text string) { w.Header().Set("Server", text); w.WriteHeader(400) },
	} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			for _, route := range []string{"/auth/v1/health", "/auth/v1/token", "/rest/v1/", "/realtime/v1/api/", "/realtime/v1/websocket"} {
				for n := range 14 {
					w := newWorld(t, func(w *standin.Stack) {
						w.Routes[route] = func(rw http.ResponseWriter, _ *http.Request) { answer(rw, all(10*n)) }
					})
					cfg := doctor.Config{URL: w.URL, SecretKey: secret, Token: sluice.Secret(tok)}
					if route == "/auth/v1/token" {
						cfg.Token = ""
					}
					cfg.Email, cfg.Password = "alice@example.com", password
					hides(t, fmt.Sprint(place, " ", route, " ", 10*n), visit(t, cfg), secret, password, tok)
				}
			}
		})
	}
}

func mustJSON(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}

// A refusal's code comes from the server, and so does what is no message.
func TestEchoedCodeAndFrames(t *testing.T) {
	t.Parallel()
	tok := userToken(t, 3600e9)
	w := newWorld(t, func(w *standin.Stack) {
		w.Routes["/sluice/v1/me"] = func(rw http.ResponseWriter, r *http.Request) {
			io.WriteString(rw, `{"key":"publishable","role":"anon","token_refused":{"code":`+mustJSON(r.Header.Get("Authorization"))+`,"text":"no"}}`)
		}
	})
	hides(t, "code", visit(t, doctor.Config{URL: w.URL, Token: sluice.Secret(tok)}), tok)
	for n := range 15 {
		w = newWorld(t, onJoin(func(c *standin.Conn, m standin.Message) bool {
			if len(standin.Bindings(m)) == 0 {
				return false
			}
			c.Reply(m, "ok", `{"postgres_changes":[{"id":1,"table":`+mustJSON(strings.Repeat("x", 20*n)+tok)+`}]}`)
			return true
		}))
		hides(t, "bindings", visit(t, doctor.Config{URL: w.URL, Token: sluice.Secret(tok), Tables: []string{"messages"}}), tok)
	}
}

// A page's address holds tokens, and a database's string need not be a URL.
func TestSecretsOfAddresses(t *testing.T) {
	t.Parallel()
	const parameter, password = "magic-link-Kd83nfQ0vmZ1", "db/pass:word@with#odd?chars 93"
	w := newWorld(t)
	page := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Security-Policy", "connect-src http://echo/"+r.URL.RawQuery)
	}))
	t.Cleanup(page.Close)
	for _, address := range []string{page.URL, "http://127.0.0.1:1"} {
		r := visit(t, doctor.Config{URL: w.URL, Page: address + "/?token=" + parameter + "#access_token=" + parameter})
		hides(t, "page", r, parameter)
	}
	open := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(open.Close)
	hides(t, "page without a policy", visit(t, doctor.Config{URL: w.URL, Page: open.URL + "/?token=" + parameter}), parameter)
	// A server that speaks PostgreSQL and repeats the password.
	db := listen(t, refuseLogin)
	host, port, _ := strings.Cut(db, ":")
	for _, raw := range []string{
		"postgresql://postgres:" + url.QueryEscape(password) + "@" + db + "/postgres?sslmode=disable",
		fmt.Sprintf("host=%s port=%s user=postgres password='%s' sslmode=disable", host, port, password),
	} {
		hides(t, "database", visit(t, doctor.Config{URL: w.URL, DatabaseURL: sluice.Secret(raw)}), password)
		if err := doctor.Mend(context.Background(), sluice.Secret(raw), []string{"select 1"}); err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("Mend shows the password: %v", err)
		}
	}
}

// refuseLogin asks for the password in clear and repeats it in its refusal.
func refuseLogin(c net.Conn) {
	message := func(head int) string {
		h := make([]byte, head+4)
		if _, err := io.ReadFull(c, h); err != nil {
			return ""
		}
		body := make([]byte, binary.BigEndian.Uint32(h[head:])-4)
		_, _ = io.ReadFull(c, body)
		return strings.TrimRight(string(body), "\x00")
	}
	message(0) // startup
	_, _ = c.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3})
	password := message(1)
	body := "SFATAL\x00VFATAL\x00C28P01\x00Mpassword authentication failed: " + password + "\x00\x00"
	_, _ = c.Write(append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(body)+4)), body...))
}
