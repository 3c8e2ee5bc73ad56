package doctor_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/internal/leak"
	"github.com/sluice-dev/sluice/internal/standin"
)

// refuse answers handshakes for which bad says so.
func refuse(status int, body string, bad func(key string, r *http.Request) bool) func(*standin.Stack) {
	return func(w *standin.Stack) {
		w.Admit = func(rw http.ResponseWriter, r *http.Request) bool {
			if !bad(r.URL.Query().Get("apikey"), r) {
				return false
			}
			if body != "" {
				standin.WriteJSON(rw, status, body)
			} else {
				rw.WriteHeader(status)
			}
			return true
		}
	}
}

func everything(string, *http.Request) bool { return true }

func opaque(key string, _ *http.Request) bool { return strings.HasPrefix(key, "sb_") }

func TestHealthy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := visit(t, doctor.Config{URL: w.URL, Token: sluice.Secret(userToken(t, 3600e9)), Tables: []string{"messages"}})
	for _, f := range r.Findings {
		if f.Status == doctor.Warn || f.Status == doctor.Fail {
			t.Errorf("%s: %s (%s)", f.Hop, f.Text, f.Evidence)
		}
	}
	for _, hop := range []doctor.Hop{
		doctor.HopGateway, doctor.HopCORS, doctor.HopREST, doctor.HopSocket, doctor.HopVersions, doctor.HopCookies, doctor.HopToken, doctor.HopJoin,
		doctor.HopUserJoin, doctor.HopRefresh, doctor.HopRejoin, doctor.HopBroadcast, doctor.HopHTTPSend, doctor.HopSubscribe,
	} {
		if f := at(t, r, hop); f.Status != doctor.OK {
			t.Errorf("%s is %s: %s", hop, f.Status, f.Text)
		}
	}
}

// Not parallel: it counts goroutines.
func TestLeavesNothingRunning(t *testing.T) {
	leak.Check(t)
	visit(t, doctor.Config{URL: newWorld(t).URL, Tables: []string{"messages"}, PrivateTopic: "room"})
	visit(t, doctor.Config{URL: newWorld(t, refuse(403, "", everything)).URL})
	silent := newWorld(t, func(w *standin.Stack) { w.Receive = func(*standin.Conn, standin.Message) bool { return true } })
	visit(t, doctor.Config{URL: silent.URL, Timeout: impatient})
}

// The seed's gateway: REST works, the socket answers 403 with an empty body,
// because the opaque key is exchanged on one route and not on the other.
//
// spec: doctor:1
func TestKeyNotTranslated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, refuse(403, "", opaque))
	r := visit(t, doctor.Config{URL: w.URL})
	if f := at(t, r, doctor.HopREST); f.Status != doctor.OK {
		t.Errorf("rest is %s: %s", f.Status, f.Text)
	}
	wantFirst(t, r, doctor.HopSocket, doctor.CodeKeyNotTranslated, 1,
		"403, empty body", "a service behind kong/2.8.1", "legacy anon JWT → 101", "REST accepts a wrong key too", "2.53.11", "ANON_KEY")
	if f := at(t, r, doctor.HopJoin); f.Status != doctor.Skip {
		t.Errorf("the join was tried behind a socket that does not open: %+v", f)
	}

	t.Run("newer Realtime says why", func(t *testing.T) {
		w := newWorld(t, refuse(401, `{"error":"The token provided is not a valid JWT"}`, opaque))
		wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, doctor.CodeKeyNotTranslated, 1, "2.53.11")
	})
	t.Run("nothing to compare with", func(t *testing.T) {
		w := newWorld(t, refuse(403, "", opaque))
		r := visit(t, doctor.Config{URL: w.URL, Key: "sb_publishable_AAAAAAAAAAAAAAAAAAAAAA_BBBBBBBB"})
		wantFirst(t, r, doctor.HopSocket, doctor.CodeKeyNotTranslated, 1, "no legacy anon JWT was given", "--legacy-key", "2.53.11")
	})
	t.Run("both kinds of keys are refused", func(t *testing.T) {
		w := newWorld(t, refuse(403, "", everything), func(w *standin.Stack) { w.Routes["/realtime/v1/api/ping"] = standin.Always(500, "") })
		wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, doctor.CodeSocketRefused, 4, "_realtime.tenants")
		w = newWorld(t, refuse(403, "", everything)) // Realtime knows its tenant
		wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, sluice.CodeJwtSignatureError, 3, "api/ping → 200", "SEED_SELF_HOST")
	})
}

// A key of another secret: REST ignores it, the socket does not.
//
// spec: doctor:3
func TestKeyOfAnotherSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, refuse(403, "", func(key string, _ *http.Request) bool { return key == otherAnon }))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, Key: sluice.Secret(otherAnon)}), doctor.HopSocket, sluice.CodeJwtSignatureError, 3,
		"with the stack's anon key → 101", "put it into the app's .env file")
	w = newWorld(t, refuse(401, `{"error":"Failed to validate JWT signature"}`, func(key string, _ *http.Request) bool { return key == otherAnon }))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, Key: sluice.Secret(otherAnon)}), doctor.HopSocket, sluice.CodeJwtSignatureError, 3, "with the stack's anon key → 101")
	// With the secret at hand nothing has to be asked.
	w = newWorld(t)
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, Key: sluice.Secret(otherAnon), JWTSecret: theSecret}), doctor.HopKey, sluice.CodeJwtSignatureError, 3,
		"another secret", "restart the stack")
}

// spec: doctor:4
func TestTenantMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, refuse(403, "", everything), func(w *standin.Stack) {
		w.Routes["/realtime/v1/api/ping"] = standin.Always(500, `{"message":"Tenant not found in database"}`)
	})
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, Key: sluice.Secret(legacyAnon)}), doctor.HopSocket, doctor.CodeTenantNotFound, 4,
		"api/ping → 500", "supabase stop --no-backup", "_realtime.tenants")
	w = newWorld(t, refuse(404, `{"error":"Tenant not found"}`, everything))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, doctor.CodeTenantNotFound, 4, "first part is not the tenant's id")
}

// Kong's own words, on REST and on the socket.
func TestKongRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		body   string
		code   sluice.Code
		fix    string
	}{
		{401, `{"message":"No API key found in request"}`, sluice.CodeMissingAPIKey, "apikey"},
		{401, `{"message":"Invalid authentication credentials"}`, sluice.CodeInvalidAPIKey, "restart the app's dev server"},
		{401, `{"message":"Duplicate API key found"}`, sluice.CodeDuplicateAPIKey, "once"},
		{403, `{"message":"You cannot consume this service"}`, doctor.CodeKeyNotAllowed, "kong.yml"},
		{401, `{"message":"Invalid API key","hint":"Double check your Supabase anon or service_role API key."}`, sluice.CodeInvalidAPIKey, "Project Settings"},
	} {
		w := newWorld(t, refuse(test.status, test.body, everything))
		wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, test.code, 0, test.fix)
		w = newWorld(t, func(w *standin.Stack) {
			w.Routes["/rest/v1/sluice_doctor_probe"] = standin.Always(test.status, test.body)
		})
		wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopREST, test.code, 0, test.fix)
	}
}

// spec: doctor:7
func TestCookies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, refuse(431, "", func(_ string, r *http.Request) bool { return len(r.Header.Get("Cookie")) > 4096 }))
	r := visit(t, doctor.Config{URL: w.URL})
	f := at(t, r, doctor.HopCookies)
	if r.First() != nil || f.Status != doctor.Warn {
		t.Fatalf("want a warning alone:\n%s", show(r))
	}
	wantFinding(t, f, doctor.CodeCookiesTooLarge, 7, "431", "max_header_length", "127.0.0.1")
	w = newWorld(t, refuse(431, "", everything))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, doctor.CodeCookiesTooLarge, 7, "max_header_length")
}

// spec: doctor:8
func TestPathOrRoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wantFirst(t, visit(t, doctor.Config{URL: w.URL + "/rest/v1"}), doctor.HopURL, doctor.CodeBadURL, 8, "/rest/v1/realtime/v1/websocket", "Use the URL without a path, "+w.URL)
	w = newWorld(t, refuse(404, `{"message":"no Route matched with those values"}`, everything))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, sluice.CodeRouteNotFound, 8, "[realtime] enabled = true")
	r := visit(t, doctor.Config{URL: "postgresql://postgres:verysecret99@127.0.0.1:54322/postgres"})
	wantFirst(t, r, doctor.HopURL, doctor.CodeBadURL, 8, "--db-url")
	if strings.Contains(show(r)+r.URL, "verysecret99") {
		t.Errorf("the report holds the password:\n%s", show(r))
	}
}

// spec: doctor:16
func TestProxyDropsUpgrade(t *testing.T) {
	t.Parallel()
	for status, body := range map[int]string{
		400: "",                         // Realtime's answer to a plain GET
		426: "",                         // a proxy that speaks HTTP/2 alone
		200: `{"message":"not a page"}`, // something answers for it
	} {
		w := newWorld(t, refuse(status, body, everything))
		wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, sluice.CodeUpgradeRequired, 16, "proxy_set_header Upgrade", "HTTP/1.1")
	}
}

// spec: doctor:19
func TestUpstreamName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, refuse(503, `{"message":"name resolution failed"}`, everything))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, doctor.CodeUpstreamName, 19, "ip_version")
}

// spec: doctor:21
func TestRealtimeDown(t *testing.T) {
	t.Parallel()
	for _, status := range []int{502, 503, 504} {
		w := newWorld(t, refuse(status, `{"message":"An invalid response was received from the upstream server"}`, everything))
		wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, doctor.CodeServiceDown, 21, "docker logs", "supabase stop --no-backup")
	}
}

// spec: doctor:27
func TestLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, refuse(429, `{"error":"Too many connected users"}`, everything))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopSocket, sluice.CodeTooManyConns, 27, "removeChannel")
	for _, reason := range []string{"ChannelRateLimitReached: Too many channels", "ClientJoinRateLimitReached: Too many joins per second"} {
		w = newWorld(t, func(w *standin.Stack) {
			w.Receive = func(c *standin.Conn, m standin.Message) bool {
				if m.Event == "phx_join" {
					c.Reply(m, "error", `{"reason":"`+reason+`"}`)
				}
				return m.Event == "phx_join"
			}
		})
		r := visit(t, doctor.Config{URL: w.URL})
		if f := r.First(); f == nil || f.Rule != 27 {
			t.Errorf("%s:\n%s", reason, show(r))
		}
		wantFirst(t, r, doctor.HopJoin, r.First().Code, 27, "removeChannel", reason)
	}
}

// spec: doctor:28
func TestVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, VSN: "3.0.0"}), doctor.HopSocket, sluice.CodeUnsupportedVersion, 28,
		"vsn=3.0.0", "with vsn=1.0.0 → 101", "Use vsn=1.0.0 or vsn=2.0.0")
	w = newWorld(t, refuse(403, "", func(_ string, r *http.Request) bool { return r.URL.Query().Get("vsn") == "1.0.0" }))
	f := at(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopVersions)
	wantFinding(t, f, sluice.CodeUnsupportedVersion, 28, "vsn=1.0.0 is refused")
}

// FuzzSocket: what a server sends is anybody's bytes.
func FuzzSocket(f *testing.F) {
	f.Add([]byte("\x81\x1e[null,null,\"t\",\"phx_reply\",{}]"))
	f.Add([]byte("\x89\x00\x01\x01[\x80\x01]\x88\x02\x03\xe8"))
	f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x7f\xff\xff\xff"))
	f.Fuzz(func(_ *testing.T, data []byte) { doctor.ReadMessages(data) })
}
