package gateway_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/token"
)

// No request puts a key, token, code or password into the log, wherever it
// stands.
//
// spec: gateway:7
func TestLogHoldsNoSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secrets := []string{
		token.DevPublishableKey, token.DevSecretKey, user(t, time.Hour), user(t, -time.Hour),
		token.LegacyKey(token.DevJWTSecret, "service_role"), token.LegacyKey("a secret of another project", "anon"),
		"sb_secret_BBBBBBBBBBBBBBBBBBBBBB_12345678", "sb_publishable_BBBBBBBBBBBBBBBBBBBBBB_12345678",
	}
	targets := []string{
		"/auth/v1/token", "/rest/v1/t", "/realtime/v1/api/broadcast", "/realtime/v1/websocket", "/storage/v1/x", "/nowhere", "/auth/v1/verify",
	}
	params := []string{
		"apikey", "access_token", "refresh_token", "id_token", "token", "token_hash", "code", "provider_token", "provider_refresh_token",
		"key", "%61pikey", "APIKEY", "anything", "select", "redirect_to",
	}
	headers := []string{"Apikey", "Authorization", "X-Api-Key", "Cookie", "Referer", "X-Request-Id", "User-Agent", "Sec-Websocket-Protocol"}
	for _, secret := range secrets {
		for _, target := range targets {
			for _, method := range []string{"GET", "POST", "OPTIONS"} {
				for _, h := range headers {
					w.do(method, target, h, secret)
					w.do(method, target, h, "Bearer "+secret, "Upgrade", "websocket")
				}
				for _, p := range params {
					w.do(method, target+"?vsn=1.0.0&"+p+"="+secret)
					w.do(method, target+"?"+p+"="+strings.ReplaceAll(secret, "_", "%5f")+"&a=b", "Upgrade", "websocket")
					w.do(method, target+"?"+p+"=Bearer+"+secret)
					w.do(method, target+"?"+p+"=http%3A%2F%2Fx%2F%23access_token%3D"+secret)
				}
				w.do(method, target+"?"+secret)
				w.do(method, target+"?a&"+secret+"=x")
				w.do(method, target+"/"+secret+"/x")
			}
		}
	}
	// Short secrets have no form of their own; the parameter's name tells.
	for _, p := range []string{"token", "token_hash", "code", "password", "refresh_token", "access_token", "apikey"} {
		w.do("GET", "/auth/v1/verify?type=signup&"+p+"=hunter2hunter2")
		w.do("GET", "/auth/v1/authorize?redirect_to=https%3A%2F%2Fapp.example%2Fcallback%3Fa%3D1%26"+p+"%3Dhunter2hunter2")
		w.do("GET", "/auth/v1/authorize?redirect_to=https%3A%2F%2Fapp.example%2F%3Fnext%3D%252Fx%2523"+p+"%253Dhunter2hunter2")
	}
	for _, secret := range []string{token.DevJWTSecret, "850181e4652dd023b7a98c58ae0d2d34bd487ee0cc3254aed6eda37307425907"} {
		w.do("GET", "/rest/v1/t?apikey="+secret)
		w.do("GET", "/rest/v1/t", "Apikey", secret)
		w.do("GET", "/realtime/v1/websocket", "Apikey", secret, "Upgrade", "websocket")
	}
	w.do("GET", "/auth/v1/authorize?redirect_to=https%3A%2F%2Fme%3Ahunter2hunter2%40app.example%2F")
	log := w.log.String()
	for _, secret := range append(secrets, "hunter2hunter2", token.DevJWTSecret, "850181e4652dd023b7a98c58ae0d2d34bd487ee0cc3254aed6eda37307425907") {
		for _, part := range []string{secret, secret[len(secret)-12:], strings.ReplaceAll(secret, "_", "%5f")} {
			if i := strings.Index(log, part); i >= 0 {
				t.Fatalf("the log shows %q: …%s", part, log[max(0, i-300):min(len(log), i+80)])
			}
		}
	}
	for _, want := range []string{`sb_publishable_ACJW…`, `apikey=sb_secret_…`, `"key":"publishable(header)"`, `"key":"secret(query)"`, `"code":"InvalidAPIKey"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
}

// What is no secret is logged as it was asked.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct {
		method, target string
		header         []string
		want           map[string]any
	}{
		{"GET", "/rest/v1/messages?select=id,money&body=like.*a%25b*&order=id.desc", []string{"Apikey", token.DevPublishableKey}, map[string]any{
			"level": "INFO", "msg": "request", "method": "GET", "path": "/rest/v1/messages?select=id,money&body=like.*a%25b*&order=id.desc",
			"status": 200.0, "key": "publishable(header)", "role": "anon", "bytes": 4.0, "code": nil, "shown": nil,
		}},
		{"POST", "/rest/v1/t?email=eq.a@example.com", []string{"Apikey", token.DevPublishableKey, "Authorization", "Bearer " + user(t, time.Hour)}, map[string]any{
			"level": "INFO", "path": "/rest/v1/t?email=eq.a@example.com", "key": "publishable(header)", "role": "authenticated",
		}},
		{"GET", "/rest/v1/t", nil, map[string]any{"level": "INFO", "key": "none", "role": "anon"}},
		{"GET", "/rest/v1/t", []string{"Apikey", "sb_publishable_BCJWlzQHlZjBrEguHvfOxg_3BJgxAaH"}, map[string]any{
			"level": "WARN", "status": 401.0, "key": "publishable(header)", "role": nil, "code": "InvalidAPIKey", "shown": "sb_publishable_BCJW…",
		}},
		{"GET", "/realtime/v1/websocket?apikey=undefined&vsn=2.0.0", []string{"Upgrade", "websocket"}, map[string]any{
			"level": "WARN", "status": 401.0, "key": "other(query)", "code": "NotAnAPIKey", "path": "/realtime/v1/websocket?apikey=other…&vsn=2.0.0",
		}},
		{"GET", "/nowhere", nil, map[string]any{"level": "WARN", "status": 404.0, "code": "RouteNotFound", "key": nil}},
		{"OPTIONS", "/rest/v1/t", []string{"Origin", "http://x", "Access-Control-Request-Method", "GET"}, map[string]any{"level": "DEBUG", "status": 200.0}},
	} {
		w.do(tt.method, tt.target, append(tt.header, "X-Request-Id", "request-1")...)
		lines := w.log.lines(t)
		got := lines[len(lines)-1]
		for k, v := range tt.want {
			if got[k] != v {
				t.Errorf("%s %s: %s is %v, want %v", tt.method, tt.target, k, got[k], v)
			}
		}
		if _, ok := got["took"].(float64); !ok || got["request"] != "request-1" {
			t.Errorf("line %v", got)
		}
	}
	w.do("GET", "/rest/v1/t?a="+strings.Repeat("b", 10000))
	lines := w.log.lines(t)
	if path := lines[len(lines)-1]["path"].(string); len(path) > 2100 {
		t.Errorf("a path of %d bytes is logged", len(path))
	}
}

// Cookies of all the ports of localhost come along. They are taken, and named
// once a minute.
func TestLargeCookies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	srv := httptest.NewUnstartedServer(w)
	srv.Config.MaxHeaderBytes = gateway.MaxHeaderBytes
	srv.Start()
	defer srv.Close()
	for range 3 {
		r, err := http.NewRequest("GET", srv.URL+"/rest/v1/t?select="+strings.Repeat("a", 30<<10), nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			r.Header.Add("Cookie", "c="+strings.Repeat("x", 10<<10))
		}
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != http.StatusOK {
			t.Errorf("40 KB of cookies: %d", res.StatusCode)
		}
	}
	if n := strings.Count(w.log.String(), `"cookie_bytes":`); n != 1 {
		t.Errorf("%d warnings for three requests", n)
	}
}

// A handler that is not asked for lines gets none.
func TestLogOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *gateway.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	if rec := w.do("GET", "/rest/v1/t"); rec.Code != http.StatusOK || w.log.String() != "" {
		t.Errorf("%d, log %q", rec.Code, w.log.String())
	}
}
