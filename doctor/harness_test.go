package doctor_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/token"
)

const (
	publishable = token.DevPublishableKey
	theSecret   = "a-secret-of-this-project-with-many-characters"
)

var (
	legacyAnon = token.LegacyKey(token.DevJWTSecret, "anon")
	otherAnon  = token.LegacyKey("another-secret-of-another-project-altogether", "anon")
)

// userToken is a user's token that ends after d.
func userToken(t *testing.T, d time.Duration) string {
	t.Helper()
	ring, err := token.New(token.Config{Secret: token.DevJWTSecret})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := ring.Sign(map[string]any{"role": "authenticated", "sub": "5ec4ed11-c1a0-4e07-a5ff-5d7ad0d9b7a1", "exp": time.Now().Add(d).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// forged is a JWT that nobody signed, with these header and claims.
func forged(header, claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(header)) + "." + enc([]byte(claims)) + ".c2ln"
}

// world is a Supabase that behaves as the CLI's stack does, but for what a test
// replaces.
type world struct {
	// routes answer before anything else does; the key is a path prefix.
	routes map[string]http.HandlerFunc
	// admit answers a handshake with a status other than 101, or returns false.
	admit func(w http.ResponseWriter, r *http.Request) bool
	// receive sees every message of a socket first; true means that it answered.
	receive func(c *conn, m msg) bool

	url string

	mu    sync.Mutex
	conns map[*conn]bool
	ended sync.WaitGroup
}

// conn is one socket of the fake Realtime.
type conn struct {
	nc     net.Conn
	v1     bool
	topics map[string]any // join refs
	mu     sync.Mutex
}

type msg struct {
	joinRef, ref any
	topic, event string
	payload      json.RawMessage
}

func newWorld(t *testing.T, change ...func(*world)) *world {
	t.Helper()
	w := &world{routes: map[string]http.HandlerFunc{}, conns: map[*conn]bool{}}
	for _, c := range change {
		c(w)
	}
	s := httptest.NewServer(w)
	w.url = s.URL
	t.Cleanup(func() { s.Close(); w.ended.Wait() })
	return w
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	h := rw.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Via", "kong/2.8.1")
	for prefix, answer := range w.routes {
		if strings.HasPrefix(r.URL.Path, prefix) {
			answer(rw, r)
			return
		}
	}
	switch {
	case r.Method == http.MethodOptions:
		h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
	case r.URL.Path == "/auth/v1/health":
		writeJSON(rw, 200, `{"version":"v2.180.0","name":"GoTrue","description":"GoTrue is a user registration and authentication API"}`)
	case r.URL.Path == "/realtime/v1/api/broadcast":
		w.httpBroadcast(rw, r)
	case r.URL.Path == "/realtime/v1/websocket":
		w.handshake(rw, r)
	case strings.HasPrefix(r.URL.Path, "/rest/v1/"):
		writeJSON(rw, 404, `{"code":"PGRST205","message":"Could not find the table in the schema cache"}`)
	default:
		writeJSON(rw, 404, `{"message":"no Route matched with those values"}`)
	}
}

func writeJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// always answers every request of a route.
func always(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, status, body) }
}

func (w *world) handshake(rw http.ResponseWriter, r *http.Request) {
	vsn := r.URL.Query().Get("vsn")
	switch {
	case w.admit != nil && w.admit(rw, r):
		return
	case vsn != "1.0.0" && vsn != "2.0.0":
		rw.WriteHeader(403)
		return
	}
	w.ended.Add(1) // before the server stops to wait for this request
	nc, _, _, err := ws.UpgradeHTTP(r, rw)
	if err != nil {
		w.ended.Done()
		return
	}
	c := &conn{nc: nc, v1: vsn == "1.0.0", topics: map[string]any{}}
	w.mu.Lock()
	w.conns[c] = true
	w.mu.Unlock()
	go func() {
		defer w.ended.Done()
		defer nc.Close()
		for {
			m, err := c.read()
			if err != nil {
				return
			}
			if w.receive == nil || !w.receive(c, m) {
				c.answer(m)
			}
		}
	}()
}

func (c *conn) read() (m msg, err error) {
	data, op, err := wsutil.ReadClientData(c.nc)
	if err != nil || op != ws.OpText {
		return m, fmt.Errorf("read: %v, op %v", err, op)
	}
	if c.v1 {
		var o struct {
			JoinRef any `json:"join_ref"`
			Ref     any
			Topic   string
			Event   string
			Payload json.RawMessage
		}
		err = json.Unmarshal(data, &o)
		return msg{o.JoinRef, o.Ref, o.Topic, o.Event, o.Payload}, err
	}
	var a [5]json.RawMessage
	if err = json.Unmarshal(data, &a); err != nil {
		return m, err
	}
	for i, into := range []any{&m.joinRef, &m.ref, &m.topic, &m.event} {
		if err = json.Unmarshal(a[i], into); err != nil {
			return m, err
		}
	}
	m.payload = a[4]
	return m, nil
}

func (c *conn) send(joinRef, ref any, topic, event, payload string) {
	var text []byte
	if c.v1 {
		text, _ = json.Marshal(map[string]any{"ref": ref, "topic": topic, "event": event, "payload": json.RawMessage(payload)})
	} else {
		text, _ = json.Marshal([]any{joinRef, ref, topic, event, json.RawMessage(payload)})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = wsutil.WriteServerText(c.nc, text)
}

func (c *conn) reply(m msg, status, response string) {
	c.send(m.joinRef, m.ref, m.topic, "phx_reply", `{"status":"`+status+`","response":`+response+`}`)
}

func (c *conn) system(m msg, status, text string) {
	body, _ := json.Marshal(map[string]string{"extension": "postgres_changes", "status": status, "message": text, "channel": "x"})
	c.send(m.ref, nil, m.topic, "system", string(body))
}

// bindings returns the postgres_changes of a join with ids.
func bindings(m msg) []map[string]any {
	var p struct {
		Config struct {
			Changes []map[string]any `json:"postgres_changes"`
		} `json:"config"`
	}
	_ = json.Unmarshal(m.payload, &p)
	for i, b := range p.Config.Changes {
		b["id"] = i + 1
	}
	return p.Config.Changes
}

// answer behaves as Realtime does.
func (c *conn) answer(m msg) {
	switch m.event {
	case "phx_join":
		changes := bindings(m)
		if changes == nil {
			changes = []map[string]any{}
		}
		body, _ := json.Marshal(map[string]any{"postgres_changes": changes})
		c.reply(m, "ok", string(body))
		if old, has := c.topics[m.topic]; has {
			c.send(old, old, m.topic, "phx_close", "{}")
		}
		c.mu.Lock()
		c.topics[m.topic] = m.ref
		c.mu.Unlock()
		if len(changes) > 0 {
			c.system(m, "ok", "Subscribed to PostgreSQL")
		}
	case "broadcast":
		c.send(nil, nil, m.topic, "broadcast", string(m.payload))
		c.reply(m, "ok", "{}")
	case "heartbeat":
		c.reply(m, "ok", "{}")
	}
}

func (w *world) httpBroadcast(rw http.ResponseWriter, r *http.Request) {
	var body struct {
		Messages []struct {
			Topic, Event string
			Payload      json.RawMessage
		}
	}
	if json.NewDecoder(r.Body).Decode(&body) != nil {
		rw.WriteHeader(400)
		return
	}
	rw.WriteHeader(202)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range body.Messages {
		for c := range w.conns {
			c.mu.Lock()
			_, joined := c.topics["realtime:"+m.Topic]
			c.mu.Unlock()
			if joined {
				c.send(nil, nil, "realtime:"+m.Topic, "broadcast", `{"type":"broadcast","event":"`+m.Event+`","payload":`+string(m.Payload)+`}`)
			}
		}
	}
}

// patience is the time that a test gives a server that hangs, and one that does
// not on a busy machine.
const (
	impatient = 2 * time.Second
	patient   = time.Minute
)

// visit runs the doctor. No report may hold a secret.
func visit(t *testing.T, cfg doctor.Config) *doctor.Report {
	t.Helper()
	if cfg.Key == "" {
		cfg.Key = publishable
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = patient
	}
	if cfg.Total == 0 {
		cfg.Total = 5 * patient
	}
	r, err := doctor.Check(context.Background(), cfg)
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []sluice.Secret{cfg.Key, cfg.LegacyKey, cfg.JWTSecret, cfg.Token, cfg.Password, cfg.DatabaseURL, sluice.Secret(legacyAnon)} {
		if s != "" && strings.Contains(string(text), string(s)) {
			t.Errorf("the report holds a secret:\n%s", text)
		}
	}
	return r
}

// at returns the worst finding of a hop.
func at(t *testing.T, r *doctor.Report, hop doctor.Hop) doctor.Finding {
	t.Helper()
	var worst *doctor.Finding
	order := map[doctor.Status]int{doctor.Skip: 0, doctor.OK: 1, doctor.Warn: 2, doctor.Fail: 3}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Hop == hop && (worst == nil || order[f.Status] > order[worst.Status]) {
			worst = f
		}
	}
	if worst == nil {
		t.Fatalf("no finding for %q in\n%s", hop, show(r))
	}
	return *worst
}

func show(r *doctor.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-4s %-16s %s | %s | %s\n", f.Status, f.Hop, f.Text, f.Evidence, f.Remedy)
	}
	return b.String()
}

// wantFirst checks the first failing finding: its hop, code, rule, and parts of
// its text, evidence and remedy.
func wantFirst(t *testing.T, r *doctor.Report, hop doctor.Hop, code sluice.Code, rule int, parts ...string) {
	t.Helper()
	f := r.First()
	if f == nil {
		t.Fatalf("nothing fails:\n%s", show(r))
	}
	if f.Hop != hop {
		t.Fatalf("first failing hop is %q, want %q:\n%s", f.Hop, hop, show(r))
	}
	wantFinding(t, *f, code, rule, parts...)
}

func wantFinding(t *testing.T, f doctor.Finding, code sluice.Code, rule int, parts ...string) {
	t.Helper()
	if f.Code != code || f.Rule != rule {
		t.Errorf("finding has code %s, rule %d; want %s, rule %d: %+v", f.Code, f.Rule, code, rule, f)
	}
	all := f.Text + "\n" + f.Evidence + "\n" + f.Remedy
	for _, p := range parts {
		if !strings.Contains(all, p) {
			t.Errorf("finding lacks %q:\n%s", p, all)
		}
	}
	if f.Remedy == "" {
		t.Errorf("finding without a remedy: %+v", f)
	}
}
