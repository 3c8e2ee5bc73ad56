package gateway_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/cluster"
	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/token"
)

// withRealtime serves a gateway before a real Realtime on 127.0.0.1.
func withRealtime(t *testing.T, explain bool) (*world, *httptest.Server) {
	t.Helper()
	w := newWorld(t, func(c *gateway.Config) {
		c.Explain = explain
		rt, err := realtime.New(realtime.Config{
			Logger: slog.New(slog.DiscardHandler), Tokens: c.Keys, Bus: cluster.NewLocal(cluster.Handlers{}), Explain: explain,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = rt.Run(ctx) })
		t.Cleanup(func() { cancel(); running.Wait() })
		c.Realtime = rt
	})
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.serving.RLock()
		defer w.serving.RUnlock()
		w.ServeHTTP(rw, r)
	}))
	t.Cleanup(srv.Close)
	return w, srv
}

// join opens the socket, joins a channel and returns the reply's status and
// reason.
func join(t *testing.T, srv *httptest.Server, query string, header http.Header) (status, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, _, _, err := ws.Dialer{Header: ws.HandshakeHeaderHTTP(header)}.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http")+"/realtime/v1/websocket?"+query)
	if err != nil {
		return "refused", err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	v2 := strings.Contains(query, "vsn=2.0.0")
	msg := `{"topic":"realtime:a","event":"phx_join","payload":{"config":{}},"ref":"1","join_ref":"1"}`
	if v2 {
		msg = `["1","1","realtime:a","phx_join",{"config":{}}]`
	}
	if err := wsutil.WriteClientText(conn, []byte(msg)); err != nil {
		t.Fatal(err)
	}
	text, err := wsutil.ReadServerText(conn)
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Payload json.RawMessage }
	if v2 {
		var parts []json.RawMessage
		if err := json.Unmarshal(text, &parts); err != nil || len(parts) != 5 {
			t.Fatalf("reply %s: %v", text, err)
		}
		m.Payload = parts[4]
	} else if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("reply %s: %v", text, err)
	}
	var p struct {
		Status   string
		Response struct{ Reason string }
	}
	if err := json.Unmarshal(m.Payload, &p); err != nil {
		t.Fatalf("reply %s: %v", text, err)
	}
	return p.Status, p.Response.Reason
}

// The seed's failure: the publishable key on the socket's route must open it, in
// both versions and every place, on every start.
//
// spec: gateway:3
func TestSocketOpens(t *testing.T) {
	t.Parallel()
	anon := token.LegacyKey(token.DevJWTSecret, "anon")
	for start := range 10 {
		w, srv := withRealtime(t, start%2 == 0)
		for _, vsn := range []string{"&vsn=1.0.0", "&vsn=2.0.0", ""} {
			for _, key := range []string{token.DevPublishableKey, token.DevSecretKey, anon} {
				if status, reason := join(t, srv, "apikey="+key+vsn, nil); status != "ok" {
					t.Errorf("%s: %s %s", vsn, status, reason)
				}
				// x-api-key from outside does not override the key.
				if status, reason := join(t, srv, vsn, http.Header{"Apikey": {key}, "X-Api-Key": {"sb_secret_nobodys"}}); status != "ok" {
					t.Errorf("%s in the header: %s %s", vsn, status, reason)
				}
			}
		}
		if status, _ := join(t, srv, "apikey="+anon+"&vsn=garbage", nil); status != "refused" {
			t.Errorf("vsn=garbage: %s", status)
		}
		w.settle()
		upgrades := 0
		for _, line := range w.log.lines(t) {
			if line["msg"] == "ws upgrade" && line["status"] == 101.0 && line["role"] != nil && line["key"] != "none" {
				upgrades++
			}
		}
		if upgrades != 18 {
			t.Errorf("%d lines of upgrades in the log, want 18", upgrades)
		}
	}
}

// Each way a handshake is refused: what an upgrade gets with explain mode off
// and on, what a plain GET tells, what the log says.
//
// spec: gateway:5 gateway:6 realtime:2
func TestSocketRefused(t *testing.T) {
	t.Parallel()
	silent, silentSrv := withRealtime(t, false)
	explaining, explainSrv := withRealtime(t, true)
	for name, tt := range map[string]struct {
		key, text string
		code      sluice.Code
		kind      sluice.KeyKind
		remedy    string
	}{
		"no key":      {"", "API key is missing", sluice.CodeMissingAPIKey, sluice.KeyNone, "query parameter apikey"},
		"unknown key": {"sb_publishable_BCJWlzQHlZjBrEguHvfOxg_3BJgxAaH", "sb_publishable_BCJW… is not a key of this project", sluice.CodeInvalidAPIKey, sluice.KeyPublishable, "sluice status"},
		"not a JWT":   {"a.b.c", "The token provided is not a valid JWT", sluice.CodeMalformedJWT, "other", "copy it again"},
		"a signature": {token.LegacyKey("a secret of another project", "anon"), "Failed to validate JWT signature", sluice.CodeJwtSignatureError, sluice.KeyJWT, "another project"},
		"expired":     {user(t, -time.Hour), "Token has expired", sluice.CodeInvalidJWTToken, sluice.KeyJWT, "use the publishable key"},
		"no role":     {sign(t, token.DevJWTSecret, map[string]any{"exp": 9999999999}), "Fields `role` and `exp` are required in JWT", sluice.CodeInvalidJWTToken, sluice.KeyJWT, "both claims"},
		"alg none":    {"eyJhbGciOiJub25lIn0.eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjo5OTk5OTk5OTk5fQ.", "Failed to generate JWT signer, check your JWT secret or JWKS configuration", sluice.CodeJwtSignerError, sluice.KeyJWT, "key id"},
		"no key id":   {"eyJhbGciOiJFUzI1NiIsImtpZCI6Im5vYm9keSJ9.eyJyb2xlIjoiYW5vbiIsImV4cCI6OTk5OTk5OTk5OX0.AAAA", `Failed to generate JWT signer for key ID (kid) "nobody", check your JWT secret or JWKS configuration`, sluice.CodeJwtSignerError, sluice.KeyJWT, "key id"},
		"password":    {"postgres", "is not an API key", sluice.CodeNotAnAPIKey, "other", "publishable key"},
	} {
		for _, vsn := range []string{"1.0.0", "2.0.0"} {
			query := "vsn=" + vsn + "&apikey=" + tt.key
			upgrade := []string{"Upgrade", "websocket", "Connection", "Upgrade"}

			rec := silent.do("GET", "/realtime/v1/websocket?"+query, upgrade...)
			body := wantRefusal(t, rec, http.StatusUnauthorized, tt.code)
			if !strings.Contains(body.Error, tt.text) || !strings.Contains(body.Hint, tt.remedy) {
				t.Errorf("%s: %+v", name, body)
			}
			lines := silent.log.lines(t)
			line := lines[len(lines)-1]
			if line["code"] != string(tt.code) || line["level"] != "WARN" || !strings.HasPrefix(line["key"].(string), string(tt.kind)) || line["role"] != nil {
				t.Errorf("%s: log %v", name, line)
			}
			if status, reason := join(t, silentSrv, query, nil); status != "refused" || !strings.Contains(reason, "401") {
				t.Errorf("%s: explain off: %s %s", name, status, reason)
			}
			status, reason := join(t, explainSrv, query, nil)
			if status != "error" || !strings.HasPrefix(reason, string(tt.code)+": ") || !strings.Contains(reason, tt.text) || !strings.Contains(reason, tt.remedy) {
				t.Errorf("%s: explain on: %s %s", name, status, reason)
			}

			for w, upgrade := range map[*world]string{silent: "401", explaining: "101, and every join is answered with this reason"} {
				rec := w.do("GET", "/realtime/v1/websocket?"+query)
				body := wantRefusal(t, rec, http.StatusUnauthorized, tt.code)
				d := diagnosis(t, rec)
				if d.Upgrade != upgrade || d.KeyValid || d.Key != tt.kind || d.Vsn != vsn || !d.VsnValid || d.Role != "" || !strings.Contains(body.Message, tt.text) {
					t.Errorf("%s: diagnosis %s", name, rec.Body)
				}
				if len(tt.key) > 20 && strings.Contains(rec.Body.String(), tt.key[len(tt.key)-12:]) {
					t.Errorf("%s: the diagnosis shows the key: %s", name, rec.Body)
				}
			}
		}
	}
	explaining.settle()
	explained := 0
	for _, line := range explaining.log.lines(t) {
		if line["msg"] == "ws upgrade" && line["status"] == 101.0 && line["code"] != nil && line["role"] == nil {
			explained++
		}
	}
	if explained != 18 {
		t.Errorf("%d upgrades with a refusal in the log, want 18", explained)
	}
}

type diagnosed struct {
	Key       sluice.KeyKind
	KeyPlace  string `json:"key_place"`
	KeyShown  string `json:"key_shown"`
	KeyValid  bool   `json:"key_valid"`
	Role, Vsn string
	VsnValid  bool `json:"vsn_valid"`
	Upgrade   string
}

func diagnosis(t *testing.T, rec *httptest.ResponseRecorder) diagnosed {
	t.Helper()
	var d diagnosed
	if err := json.Unmarshal(rec.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// A plain GET with a good key says that an upgrade would succeed.
func TestDiagnosis(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for query, want := range map[string]struct {
		status int
		code   sluice.Code
		diagnosed
	}{
		"apikey=" + token.DevPublishableKey: {400, sluice.CodeUpgradeRequired, diagnosed{
			sluice.KeyPublishable, "query", "sb_publishable_ACJW…", true, "anon", "1.0.0 (default)", true, "101",
		}},
		"vsn=2.0.0&apikey=" + token.DevSecretKey: {400, sluice.CodeUpgradeRequired, diagnosed{
			sluice.KeySecret, "query", "sb_secret_…", true, "service_role", "2.0.0", true, "101",
		}},
		"vsn=2.0&apikey=" + user(t, time.Hour): {403, sluice.CodeUnsupportedVersion, diagnosed{
			sluice.KeyJWT, "query", "jwt…", true, "authenticated", "2.0", false, "403",
		}},
		"vsn=1.0.x": {403, sluice.CodeUnsupportedVersion, diagnosed{
			sluice.KeyNone, "", "", false, "", "1.0.x", false, "403",
		}},
		"apikey=a&apikey=b": {401, sluice.CodeDuplicateAPIKey, diagnosed{
			sluice.KeyNone, "query", "", false, "", "1.0.0 (default)", true, "401",
		}},
	} {
		for _, path := range []string{"/realtime/v1/websocket?", "/realtime/v1/socket/websocket?"} {
			rec := w.do("GET", path+query)
			wantRefusal(t, rec, want.status, want.code)
			if got := diagnosis(t, rec); got != want.diagnosed {
				t.Errorf("%s: %+v, want %+v", query, got, want.diagnosed)
			}
		}
	}
	if c := w.last(t); c != nil {
		t.Errorf("a plain GET reached Realtime: %+v", c)
	}
	for vsn, valid := range map[string]bool{
		"1.0.0": true, "2.0.0": true, "1.0.17": true, "2.0.9": true, "1.1.0": false, "3.0.0": false, "2": false, "1.0.01": false,
		"1.0.": false, "01.0.0": false, "1.0.0-rc": false, "garbage": false, "1.0." + strings.Repeat("1", 40): false,
	} {
		if got := diagnosis(t, w.do("GET", "/realtime/v1/websocket?vsn="+vsn)).VsnValid; got != valid {
			t.Errorf("vsn %s: valid %v", vsn, got)
		}
	}
}
