// Package standin is a Supabase for the doctor's tests: it behaves as the
// Supabase CLI's stack does in all that the doctor looks at, but for what a test
// replaces.
package standin

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// Stack is a Supabase that behaves as the CLI's stack does, but for what a test
// replaces.
type Stack struct {
	// Routes answer before anything else does; the key is a path prefix.
	Routes map[string]http.HandlerFunc
	// Admit answers a handshake with a status other than 101, or returns false.
	Admit func(w http.ResponseWriter, r *http.Request) bool
	// Receive sees every message of a socket first; true means that it answered.
	Receive func(c *Conn, m Message) bool

	// URL is the project's.
	URL string

	server *httptest.Server
	ended  sync.WaitGroup // sockets
	mu     sync.Mutex
	conns  map[*Conn]bool
}

// Conn is one socket of the Realtime.
type Conn struct {
	// Topics that are joined, with the references of their joins.
	Topics map[string]any

	nc net.Conn
	v1 bool // protocol version
	mu sync.Mutex
}

// Message is what a client sends.
type Message struct {
	JoinRef, Ref any
	Topic, Event string
	Payload      json.RawMessage
}

// Start serves the stack on a loopback port, which URL tells from then on. What
// it answers is not changed any more.
func (w *Stack) Start() {
	w.server = httptest.NewServer(w)
	w.URL = w.server.URL
}

// Close ends the server and waits for its sockets.
func (w *Stack) Close() {
	w.server.Close()
	w.ended.Wait()
}

func (w *Stack) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	h := rw.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Via", "kong/2.8.1")
	for prefix, answer := range w.Routes {
		if strings.HasPrefix(r.URL.Path, prefix) {
			answer(rw, r)
			return
		}
	}
	switch {
	case r.Method == http.MethodOptions:
		h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
	case r.URL.Path == "/auth/v1/health":
		WriteJSON(rw, 200, `{"version":"v2.180.0","name":"GoTrue","description":"GoTrue is a user registration and authentication API"}`)
	case r.URL.Path == "/realtime/v1/api/broadcast":
		w.HTTPBroadcast(rw, r)
	case r.URL.Path == "/realtime/v1/api/ping":
		WriteJSON(rw, 200, `{"message":"Success"}`)
	case r.URL.Path == "/realtime/v1/websocket":
		w.handshake(rw, r)
	case strings.HasPrefix(r.URL.Path, "/rest/v1/"):
		WriteJSON(rw, 404, `{"code":"PGRST205","message":"Could not find the table in the schema cache"}`)
	default:
		WriteJSON(rw, 404, `{"message":"no Route matched with those values"}`)
	}
}

// WriteJSON answers with a body of JSON.
func WriteJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// Always answers every request of a route.
func Always(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, status, body) }
}

func (w *Stack) handshake(rw http.ResponseWriter, r *http.Request) {
	vsn := r.URL.Query().Get("vsn")
	switch {
	case w.Admit != nil && w.Admit(rw, r):
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
	c := &Conn{nc: nc, v1: vsn == "1.0.0", Topics: map[string]any{}}
	w.mu.Lock()
	if w.conns == nil {
		w.conns = map[*Conn]bool{}
	}
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
			if w.Receive == nil || !w.Receive(c, m) {
				c.Answer(m)
			}
		}
	}()
}

func (c *Conn) read() (m Message, err error) {
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
		return Message{o.JoinRef, o.Ref, o.Topic, o.Event, o.Payload}, err
	}
	var a [5]json.RawMessage
	if err = json.Unmarshal(data, &a); err != nil {
		return m, err
	}
	for i, into := range []any{&m.JoinRef, &m.Ref, &m.Topic, &m.Event} {
		if err = json.Unmarshal(a[i], into); err != nil {
			return m, err
		}
	}
	m.Payload = a[4]
	return m, nil
}

func (c *Conn) Send(JoinRef, ref any, topic, event, payload string) {
	var text []byte
	if c.v1 {
		text, _ = json.Marshal(map[string]any{"ref": ref, "topic": topic, "event": event, "payload": json.RawMessage(payload)})
	} else {
		text, _ = json.Marshal([]any{JoinRef, ref, topic, event, json.RawMessage(payload)})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = wsutil.WriteServerText(c.nc, text)
}

func (c *Conn) Reply(m Message, status, response string) {
	c.Send(m.JoinRef, m.Ref, m.Topic, "phx_reply", `{"status":"`+status+`","response":`+response+`}`)
}

func (c *Conn) System(m Message, status, text string) {
	body, _ := json.Marshal(map[string]string{"extension": "postgres_changes", "status": status, "message": text, "channel": "x"})
	c.Send(m.Ref, nil, m.Topic, "system", string(body))
}

// bindings returns the postgres_changes of a join with ids.
func Bindings(m Message) []map[string]any {
	var p struct {
		Config struct {
			Changes []map[string]any `json:"postgres_changes"`
		} `json:"config"`
	}
	_ = json.Unmarshal(m.Payload, &p)
	for i, b := range p.Config.Changes {
		b["id"] = i + 1
	}
	return p.Config.Changes
}

// answer behaves as Realtime does.
func (c *Conn) Answer(m Message) {
	switch m.Event {
	case "phx_join":
		changes := Bindings(m)
		if changes == nil {
			changes = []map[string]any{}
		}
		body, _ := json.Marshal(map[string]any{"postgres_changes": changes})
		c.Reply(m, "ok", string(body))
		if old, has := c.Topics[m.Topic]; has {
			c.Send(old, old, m.Topic, "phx_close", "{}")
		}
		c.mu.Lock()
		c.Topics[m.Topic] = m.Ref
		c.mu.Unlock()
		if len(changes) > 0 {
			c.System(m, "ok", "Subscribed to PostgreSQL")
		}
	case "broadcast":
		c.Send(nil, nil, m.Topic, "broadcast", string(m.Payload))
		c.Reply(m, "ok", "{}")
	case "heartbeat":
		c.Reply(m, "ok", "{}")
	}
}

func (w *Stack) HTTPBroadcast(rw http.ResponseWriter, r *http.Request) {
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
			_, joined := c.Topics["realtime:"+m.Topic]
			c.mu.Unlock()
			if joined {
				c.Send(nil, nil, "realtime:"+m.Topic, "broadcast", `{"type":"broadcast","event":"`+m.Event+`","payload":`+string(m.Payload)+`}`)
			}
		}
	}
}
