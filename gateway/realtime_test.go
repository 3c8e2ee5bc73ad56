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

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/cluster"
	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/token"
)

// beforeRealtime returns a gateway before a real Realtime.
func beforeRealtime(t *testing.T, change func(*realtime.Config)) *world {
	t.Helper()
	return newWorld(t, func(c *gateway.Config) {
		cfg := realtime.Config{Logger: slog.New(slog.DiscardHandler), Tokens: c.Keys, Bus: cluster.NewLocal(cluster.Handlers{Broadcast: func(*sluice.Broadcast) {}})}
		change(&cfg)
		rt, err := realtime.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = rt.Run(ctx) })
		t.Cleanup(func() { cancel(); running.Wait() })
		c.Realtime = rt
	})
}

// spec: realtime:9
func TestHandshakeBodies(t *testing.T) {
	t.Parallel()
	anon := token.LegacyKey(token.DevJWTSecret, "anon")
	for name, tt := range map[string]struct {
		key    string
		change func(*realtime.Config)
		status int
		text   string
	}{
		"missing":   {"", nil, 401, "API key is missing"},
		"expired":   {user(t, -time.Hour), nil, 401, "Token has expired"},
		"claims":    {sign(t, token.DevJWTSecret, map[string]any{"role": "anon"}), nil, 401, "Fields `role` and `exp` are required in JWT"},
		"malformed": {"a.b.c", nil, 401, "The token provided is not a valid JWT"},
		"signature": {token.LegacyKey("another secret of 32 characters!", "anon"), nil, 401, "Failed to validate JWT signature"},
		"users":     {anon, func(cfg *realtime.Config) { cfg.MaxUsers = realtime.Nothing }, 429, "Too many connected users"},
		"joins":     {anon, func(cfg *realtime.Config) { cfg.MaxJoinsPerSecond = realtime.Nothing }, 429, "Too many joins per second"},
	} {
		w := beforeRealtime(t, func(cfg *realtime.Config) {
			if tt.change != nil {
				tt.change(cfg)
			}
		})
		rec := w.do("GET", "/realtime/v1/websocket?vsn=2.0.0&apikey="+tt.key, "Upgrade", "websocket", "Connection", "Upgrade",
			"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
		var body struct{ Error string }
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || rec.Code != tt.status || !strings.Contains(body.Error, tt.text) {
			t.Errorf("%s: %d %s, want %d %s", name, rec.Code, rec.Body, tt.status, tt.text)
		}
		if ct := rec.Header().Get("Content-Type"); ct != "application/json; charset=utf-8" {
			t.Errorf("%s: content type %s", name, ct)
		}
	}
}

// broadcastAs sends both kinds of HTTP broadcast and returns the answers.
func broadcastAs(w *world, query string, header ...string) (out []*httptest.ResponseRecorder) {
	for path, body := range map[string]string{
		"/realtime/v1/api/broadcast":            `{"messages":[{"topic":"a","event":"e","payload":{}}]}`,
		"/realtime/v1/api/broadcast/a/events/e": `{}`,
	} {
		r := httptest.NewRequest(http.MethodPost, path+query, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		out = append(out, rec)
	}
	return out
}

// spec: realtime:131
func TestBroadcastNeedsToken(t *testing.T) {
	t.Parallel()
	w := beforeRealtime(t, func(*realtime.Config) {})
	key := token.LegacyKey(token.DevJWTSecret, "anon")
	for name, header := range map[string][]string{
		"missing":     nil,
		"x-api-key":   {"X-Api-Key", key},
		"expired":     {"Authorization", "Bearer " + user(t, -time.Hour)},
		"not a token": {"Authorization", "Bearer nonsense"},
		"no exp":      {"Authorization", "Bearer " + sign(t, token.DevJWTSecret, map[string]any{"role": "anon"})},
		"signature":   {"Authorization", "Bearer " + token.LegacyKey("another secret of 32 characters!", "anon")},
		"beside key":  {"Authorization", "Bearer " + user(t, -time.Hour), "Apikey", key},
	} {
		for _, rec := range broadcastAs(w, "", header...) {
			if rec.Code != 401 || rec.Body.String() != `{"message":"Unauthorized"}` || rec.Header().Get(sluice.HeaderCode) == "" {
				t.Errorf("%s: %d %s %v", name, rec.Code, rec.Body, rec.Header())
			}
		}
	}
}

// spec: realtime:137
func TestBroadcastSchemes(t *testing.T) {
	t.Parallel()
	w := beforeRealtime(t, func(*realtime.Config) {})
	key := token.LegacyKey(token.DevJWTSecret, "anon")
	for name, tt := range map[string]struct {
		query  string
		header []string
		status int
	}{
		"Bearer":        {"", []string{"Authorization", "Bearer " + key}, 202},
		"bearer":        {"", []string{"Authorization", "bearer " + key}, 202},
		"BEARER":        {"", []string{"Authorization", "BEARER " + key}, 202},
		"key alone":     {"", []string{"Apikey", key}, 202},
		"query":         {"?apikey=" + key, nil, 202},
		"opaque bearer": {"", []string{"Authorization", "Bearer " + token.DevPublishableKey}, 202},
		"no scheme":     {"", []string{"Authorization", key}, 401},
		"other scheme":  {"", []string{"Authorization", "Token " + key}, 401},
	} {
		for _, rec := range broadcastAs(w, tt.query, tt.header...) {
			if rec.Code != tt.status {
				t.Errorf("%s: %d %s, want %d", name, rec.Code, rec.Body, tt.status)
			}
		}
	}
}

// The page of metrics through the gateway: a secret key opens it.
func TestMetricsNeedSecretKey(t *testing.T) {
	t.Parallel()
	w := beforeRealtime(t, func(cfg *realtime.Config) {
		cfg.MetricsPage = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("page")) })
	})
	for name, tt := range map[string]struct {
		header []string
		status int
	}{
		"nobody":      {nil, 403},
		"publishable": {[]string{"Apikey", token.DevPublishableKey}, 403},
		"user":        {[]string{"Authorization", "Bearer " + user(t, time.Hour)}, 403},
		"secret":      {[]string{"Apikey", token.DevSecretKey}, 200},
		"service":     {[]string{"Authorization", "Bearer " + token.LegacyKey(token.DevJWTSecret, "service_role")}, 200},
	} {
		if rec := w.do("GET", "/realtime/v1/metrics", tt.header...); rec.Code != tt.status || tt.status == 403 && rec.Body.Len() > 0 {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
}
