package realtime_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// post sends an HTTP broadcast.
func (w *world) post(id *sluice.Identity, path, contentType, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Del("Content-Type")
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if id != nil {
		r = r.WithContext(sluice.WithIdentity(r.Context(), *id))
	}
	rec := httptest.NewRecorder()
	w.srv.ServeHTTP(rec, r)
	return rec
}

const batchPath = "/api/broadcast?apikey=x&vsn=2.0.0"

// spec: realtime:133
func TestBatch(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.joined("realtime:a:b", emptyJoin)
		rec := w.post(&anon, batchPath, "application/json", `{"messages":[
			{"topic":"a:b","event":"e","payload":{"n":1}},
			{"topic":"a:b","event":"e\"","payload":{"n": 2},"private":"false","id":"x1"},
			{"topic":"a:b","event":"e","payload":{"n":3},"private":true},
			{"topic":"other","event":"e","payload":{}}]}`)
		if rec.Code != 202 || rec.Body.Len() != 0 {
			t.Errorf("answer is %d %s", rec.Code, rec.Body)
		}
		want(t, c.got(),
			`broadcast {"type":"broadcast","event":"e","payload":{"n":1}}`,
			`broadcast {"type":"broadcast","event":"e\"","payload":{"n": 2},"meta":{"id":"x1"}}`)
	})
}

// spec: realtime:127 realtime:128
func TestBatchValidation(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		c.joined("realtime:a", emptyJoin)
		const good = `{"topic":"a","event":"e","payload":{}}`
		for _, tt := range []struct {
			body   string
			status int
			want   string
		}{
			{`{`, 400, ``},
			{`[]`, 422, `{"errors":{"messages":["can't be blank"]}}`},
			{`{}`, 422, `{"errors":{"messages":["can't be blank"]}}`},
			{`{"messages":[]}`, 422, `{"errors":{"messages":["can't be blank"]}}`},
			{`{"messages":null}`, 422, `{"errors":{"messages":["can't be blank"]}}`},
			{`{"messages":"x"}`, 422, `{"errors":{"messages":["is invalid"]}}`},
			{`{"messages":["x"]}`, 422, `{"errors":{"messages":["is invalid"]}}`},
			{`{"messages":[{"topic":"a"},` + good + `]}`, 422, `{"errors":{"messages":[{"event":["can't be blank"],"payload":["can't be blank"]},{}]}}`},
			{`{"messages":[` + good + `,{"topic":" ","event":"","payload":null}]}`, 422, `{"errors":{"messages":[{},{"event":["can't be blank"],"payload":["can't be blank"],"topic":["can't be blank"]}]}}`},
			{`{"messages":[{"topic":1,"event":[],"payload":"x","private":"maybe"}]}`, 422, `{"errors":{"messages":[{"event":["is invalid"],"payload":["is invalid"],"private":["is invalid"],"topic":["is invalid"]}]}}`},
			{`{"messages":[` + good + `,{"topic":"a","event":"e","payload":{"x":"` + strings.Repeat("x", 1600) + `"}}]}`, 422, `{"errors":{"messages":[{},{"payload":["Payload size exceeds tenant limit"]}]}}`},
			{`{"messages":"` + strings.Repeat("x", 5000) + `"}`, 413, ``},
		} {
			rec := w.post(&anon, batchPath, "application/json", tt.body)
			if rec.Code != tt.status || tt.want != "" && rec.Body.String() != tt.want {
				t.Errorf("%.80s: answer is %d %s", tt.body, rec.Code, rec.Body)
			}
		}
		want(t, c.got())
	}, func(cfg *realtime.Config) { cfg.MaxPayloadKB, cfg.MaxHTTPBody = 1, 4000 })
}

// A caller whose token did not verify is refused, not taken for the key.
func TestHTTPUnauthorized(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		bad := anon
		bad.BearerErr = sluice.Refuse(sluice.CodeJwtSignatureError)
		for code, id := range map[sluice.Code]*sluice.Identity{sluice.CodeMissingAPIKey: nil, sluice.CodeJwtSignatureError: &bad} {
			for _, path := range []string{batchPath, "/api/broadcast/a/events/e"} {
				rec := w.post(id, path, "application/json", `{"messages":[{"topic":"a","event":"e","payload":{}}]}`)
				if rec.Code != 401 || rec.Body.String() != `{"message":"Unauthorized"}` {
					t.Errorf("answer is %d %s", rec.Code, rec.Body)
				}
				if rec.Header().Get(sluice.HeaderRefusedBy) != "realtime" || rec.Header().Get(sluice.HeaderCode) != string(code) {
					t.Errorf("headers are %v", rec.Header())
				}
			}
		}
	})
}

// spec: realtime:134
func TestSingle(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		v1, v2 := w.connect(phoenix.V1), w.connect(phoenix.V2)
		for _, topic := range []string{"realtime:a", "realtime:a:b", "realtime:a/b c"} {
			v1.joined(topic, emptyJoin)
			v2.joined(topic, emptyJoin)
		}
		for _, tt := range []struct{ path, contentType, body, v1, v2 string }{
			{"/api/broadcast/a/events/e", "application/json", `{"n":1}`, `{"type":"broadcast","event":"e","payload":{"n":1}}`, kind4("realtime:a", "e", 1, `{"n":1}`)},
			{"/api/broadcast/a/events/e", "application/json", `{}`, `{"type":"broadcast","event":"e","payload":{}}`, kind4("realtime:a", "e", 1, `{}`)},
			{"/api/broadcast/a%3Ab/events/e?private=false&vsn=2.0.0", "application/json; charset=utf-8", `{}`, `{"type":"broadcast","event":"e","payload":{}}`, kind4("realtime:a:b", "e", 1, `{}`)},
			{"/api/broadcast/a%2Fb%20c/events/e%2Ff", "application/json", `{}`, `{"type":"broadcast","event":"e/f","payload":{}}`, kind4("realtime:a/b c", "e/f", 1, `{}`)},
			{"/api/broadcast/a/events/e", "application/octet-stream", "\xde\xad", "", kind4("realtime:a", "e", 0, "\xde\xad")},
			{"/api/broadcast/a/events/e", "application/octet-stream", "", "", kind4("realtime:a", "e", 0, "")},
			{"/api/broadcast/a/events/e", "", `ignored`, `{"type":"broadcast","event":"e","payload":{}}`, kind4("realtime:a", "e", 1, `{}`)},
		} {
			rec := w.post(&anon, tt.path, tt.contentType, tt.body)
			if rec.Code != 202 || rec.Body.Len() != 0 {
				t.Errorf("%s: answer is %d %s", tt.path, rec.Code, rec.Body)
			}
			if tt.v1 == "" {
				want(t, v1.got())
			} else {
				want(t, v1.got(), "broadcast "+tt.v1)
			}
			want(t, v2.got(), tt.v2)
		}
	})
}

// spec: realtime:136
func TestSingleContentType(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		for _, ct := range []string{"text/plain", "multipart/form-data", "application/xml", "nonsense"} {
			rec := w.post(&anon, "/api/broadcast/a/events/e", ct, `{}`)
			if rec.Code != 415 || rec.Body.String() != `{"error":"Unsupported Media Type. Use application/json or application/octet-stream"}` {
				t.Errorf("%s: answer is %d %s", ct, rec.Code, rec.Body)
			}
		}
		if rec := w.post(&anon, "/api/broadcast/a/events/e", "", ``); rec.Code != 202 {
			t.Errorf("without content type: %d", rec.Code)
		}
	})
}

func TestSingleValidation(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		for _, tt := range []struct {
			path, body string
			status     int
			want       string
		}{
			{"/api/broadcast/a/events/e", `{"x":"` + strings.Repeat("x", 1600) + `"}`, 422, `{"errors":{"payload":["Payload size exceeds tenant limit"]}}`},
			{"/api/broadcast/%20/events/e", `{}`, 422, `{"errors":{"topic":["can't be blank"]}}`},
			{"/api/broadcast/a/events/e", `{`, 400, `{"message":"Bad Request"}`},
			{"/api/broadcast/a/events/e", "\"\xff\"", 400, `{"message":"Bad Request"}`},
			{"/api/broadcast/a/events/e?private=true", `{}`, 422, `{"message":"Tenant database unavailable"}`},
			{"/api/broadcast/a/events/" + strings.Repeat("e", 300), `{}`, 422, `{"errors":{"event":["is invalid"]}}`},
		} {
			rec := w.post(&anon, tt.path, "application/json", tt.body)
			if rec.Code != tt.status || rec.Body.String() != tt.want {
				t.Errorf("%.60s: answer is %d %s", tt.path, rec.Code, rec.Body)
			}
		}
		r := httptest.NewRequest("POST", "/api/broadcast", strings.NewReader(`{}`))
		r.Header.Set("Accept", "text/html")
		rec := httptest.NewRecorder()
		w.srv.ServeHTTP(rec, r.WithContext(sluice.WithIdentity(r.Context(), anon)))
		if rec.Code != 406 {
			t.Errorf("Accept text/html: %d", rec.Code)
		}
	}, func(cfg *realtime.Config) { cfg.MaxPayloadKB = 1 })
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		for path, body := range map[string]string{"/healthcheck": "ok", "/api/ping": `{"message":"Success"}`} {
			rec := httptest.NewRecorder()
			w.srv.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
			if rec.Code != 200 || rec.Body.String() != body {
				t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
			}
		}
	})
}
