package realtime_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// spec: realtime:25
func TestMalformedFramesAreDropped(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		for v, frames := range map[phoenix.Version][]string{
			phoenix.V1: {``, `{`, `{"topic":"phoenix","event":"heartbeat","payload":{}}`, `{"topic":"phoenix","event":"heartbeat","ref":"1"}`, `[null,"1","phoenix","heartbeat",{}]`, "{\"topic\":\"\xff\"}"},
			phoenix.V2: {``, `nonsense`, `[]`, `[null,"1","phoenix","heartbeat"]`, `{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}`, "[null,\"1\",\"\xff\",\"heartbeat\",{}]", `[{},"1","phoenix","heartbeat",{}]`},
		} {
			c := w.connect(v)
			before := w.logs.count("MalformedWebSocketMessage")
			for _, f := range frames {
				c.text(f)
			}
			want(t, c.got())
			if n := w.logs.count("MalformedWebSocketMessage") - before; n != len(frames) {
				t.Errorf("%d of %d logged", n, len(frames))
			}
			c.push(nil, "phoenix", "heartbeat", `{}`)
			want(t, c.got(), okReply)
		}
	})
}

// spec: realtime:26
func TestUnknownBinaryIsDropped(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		c.joined("realtime:a", emptyJoin)
		for _, f := range []string{"", "\x07", "\x03", "\x03\x01\x01", "\x03\xff\xff\xff\xff\xff\x01abc", "\x00\x01", "\x00\x00\x00\xff\x00"} {
			c.binary([]byte(f))
		}
		want(t, c.got())
		if n := w.logs.count("UnknownErrorOnWebSocketMessage"); n != 7 {
			t.Errorf("%d of 7 logged", n)
		}
		c.push(nil, "phoenix", "heartbeat", `{}`)
		want(t, c.got(), okReply)
	})
}

// masked returns f as a client sends it.
func masked(f ws.Frame) []byte { return ws.MustCompileFrame(ws.MaskFrame(f)) }

func heartbeat(ref string) string {
	return fmt.Sprintf(`[null,%q,"phoenix","heartbeat",{}]`, ref)
}

func TestFragmentsAndControlFrames(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		hb := heartbeat("1")
		parts := bytes.Join([][]byte{
			masked(ws.NewFrame(ws.OpText, false, []byte(hb[:5]))),
			masked(ws.NewPingFrame([]byte("are you there"))),
			masked(ws.NewFrame(ws.OpContinuation, false, nil)),
			masked(ws.NewPongFrame(nil)),
			masked(ws.NewFrame(ws.OpContinuation, true, []byte(hb[5:]))),
			masked(ws.NewTextFrame([]byte(heartbeat("2")))),
		}, nil)
		for _, b := range parts { // byte by byte
			if _, err := c.nc.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		got := c.got()
		want(t, got, okReply, okReply)
		if len(c.pongs) != 1 || c.pongs[0] != "are you there" {
			t.Errorf("pongs are %q", c.pongs)
		}
		if _, err := c.nc.Write(parts); err != nil { // and all at once
			t.Fatal(err)
		}
		want(t, c.got(), okReply, okReply)
	})
}

func TestProtocolErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		bytes []byte
		code  ws.StatusCode
	}{
		"unmasked":             {ws.MustCompileFrame(ws.NewTextFrame([]byte("x"))), 1002},
		"reserved opcode":      {masked(ws.NewFrame(0x3, true, nil)), 1002},
		"reserved bit":         {masked(ws.Frame{Header: ws.Header{Fin: true, Rsv: 4, OpCode: ws.OpText}}), 1002},
		"lonely continuation":  {masked(ws.NewFrame(ws.OpContinuation, true, nil)), 1002},
		"text in fragments":    {append(masked(ws.NewFrame(ws.OpText, false, nil)), masked(ws.NewTextFrame(nil))...), 1002},
		"long control frame":   {masked(ws.NewFrame(ws.OpPing, true, make([]byte, 126))), 1002},
		"fragmented control":   {masked(ws.NewFrame(ws.OpPing, false, nil)), 1002},
		"negative length":      {append([]byte{0x81, 0xff}, bytes.Repeat([]byte{0xff}, 12)...), 1002},
		"close of one byte":    {masked(ws.NewCloseFrame([]byte{1})), 1002},
		"close with bad code":  {masked(ws.NewCloseFrame(ws.NewCloseFrameBody(1005, ""))), 1002},
		"close":                {masked(ws.NewCloseFrame(nil)), 1000},
		"close with app code":  {masked(closeFrame(4001)), 4001},
		"declared too big":     {append([]byte{0x81, 0xff}, binary.BigEndian.AppendUint64(nil, 1<<40)...), 1009},
		"too big in fragments": {append(masked(ws.NewFrame(ws.OpText, false, make([]byte, 900))), masked(ws.NewFrame(ws.OpContinuation, true, make([]byte, 200)))...), 1009},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				c := w.connect(phoenix.V2)
				c.joined("realtime:a", emptyJoin)
				b := tt.bytes
				if name == "declared too big" {
					b = append(b, 1, 2, 3, 4)
				}
				go c.nc.Write(b)
				if code, _ := c.closed(); code != tt.code {
					t.Errorf("closed with %d, want %d", code, tt.code)
				}
				if w.srv.Topics() != 0 {
					t.Error("the channel is still there")
				}
			}, func(cfg *realtime.Config) { cfg.MaxFrame = 1000 })
		})
	}
}

// The default limit is 5,000,000 bytes; a message of that size passes.
func TestLargestFrame(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		head, tail := `[null,"1","phoenix","heartbeat","`, `"]`
		fits := head + strings.Repeat("x", 5_000_000-len(head)-len(tail)) + tail
		c.text(fits)
		want(t, c.got(), okReply)
		go c.raw(ws.NewTextFrame([]byte(fits + " ")))
		if code, _ := c.closed(); code != 1009 {
			t.Errorf("closed with %d", code)
		}
	})
}

func TestIdle(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		silent, pings, half := w.connect(v), w.connect(v), w.connect(v)
		if _, err := half.nc.Write(masked(ws.NewTextFrame(make([]byte, 50)))[:20]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(55 * time.Second)
		pings.raw(ws.NewPingFrame(nil)) // any byte counts
		if code, _ := silent.closed(); code != 0 {
			t.Errorf("closed with %d before 60 s", code)
		}
		time.Sleep(7 * time.Second)
		for name, c := range map[string]*client{"silent": silent, "half a frame": half} {
			if code, reason := c.closed(); code != 1000 || reason != "" {
				t.Errorf("%s: closed with %d %q", name, code, reason)
			}
		}
		if code, _ := pings.closed(); code != 0 {
			t.Errorf("closed with %d although it sent something", code)
		}
		if n := w.srv.Metrics().ClosedIdle.Load(); n != 2 {
			t.Errorf("%d counted", n)
		}
	})
}

// stalled is a client that opens a socket and reads nothing.
func (w *world) stalled(v phoenix.Version) net.Conn {
	ours, theirs := net.Pipe()
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		w.srv.ServeConn(theirs, v, anon)
	}()
	return ours
}

// A reader that takes nothing is closed, and holds up nobody.
func TestSlowReader(t *testing.T) {
	for name, change := range map[string]func(*realtime.Config){
		"frames": func(cfg *realtime.Config) { cfg.QueueFrames = 50 },
		"bytes":  func(cfg *realtime.Config) { cfg.QueueBytes = 2000 },
		"time":   func(cfg *realtime.Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				slow := w.stalled(phoenix.V2)
				if _, err := slow.Write(masked(ws.NewTextFrame([]byte(`["1","1","realtime:a","phx_join",{"config":{}}]`)))); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				sender, fast := w.connect(phoenix.V2), w.connect(phoenix.V2)
				join, _ := sender.joined("realtime:a", emptyJoin)
				fast.joined("realtime:a", emptyJoin)
				for i := range 100 {
					sender.push(join, "realtime:a", "broadcast", fmt.Sprintf(`{"n":%d}`, i))
					synctest.Wait()
				}
				if got := fast.got(); len(got) != 100 {
					t.Errorf("the fast reader got %d of 100", len(got))
				}
				if name == "time" {
					time.Sleep(20 * time.Second)
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if n := w.srv.Metrics().ClosedSlow.Load(); n != 1 {
					t.Errorf("%d closed as slow", n)
				}
				if n := w.logs.count("code=SlowReader"); n != 1 {
					t.Errorf("logged %d times", n)
				}
				if n := w.srv.Metrics().Conns.Load(); n != 2 {
					t.Errorf("%d sockets are left, want 2", n)
				}
				slow.Close()
			}, change)
		})
	}
}

// A slow reader that comes back reads whole frames and the reason.
func TestSlowReaderIsTold(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		slow := w.stalled(phoenix.V2)
		slow.Write(masked(ws.NewTextFrame([]byte(`["1","1","realtime:a","phx_join",{"config":{"broadcast":{"self":true}}}]`))))
		synctest.Wait()
		for range 11 { // the reply is being written, ten wait
			slow.Write(masked(ws.NewTextFrame([]byte(`["1","2","realtime:a","broadcast",{"event":"x"}]`))))
		}
		synctest.Wait()
		c := w.client(slow, slow, phoenix.V2)
		if code, reason := c.closed(); code != 1013 || reason != "SlowReader" {
			t.Errorf("closed with %d %q", code, reason)
		}
	}, func(cfg *realtime.Config) { cfg.QueueFrames = 10 })
}

// gatewayed serves the server over TCP as the gateway would.
func (w *world) gatewayed(id *sluice.Identity) *httptest.Server {
	ts := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if id != nil {
			r = r.WithContext(sluice.WithIdentity(r.Context(), *id))
		}
		w.srv.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(func() { w.stop(); ts.Close() })
	return ts
}

// dial opens a socket over TCP.
func (w *world) dial(ts *httptest.Server, query string, v phoenix.Version) *client {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	nc, br, _, err := ws.Dial(ctx, "ws"+strings.TrimPrefix(ts.URL, "http")+"/websocket"+query)
	if err != nil {
		w.t.Fatal(err)
	}
	var r io.Reader = nc
	if br != nil {
		r = br
	}
	return w.client(nc, r, v)
}

func TestOverTCP(t *testing.T) {
	w := newWorld(t)
	ts := w.gatewayed(&anon)
	clients := map[string]*client{
		"":           w.dial(ts, "", phoenix.V1),
		"?vsn=1.0.0": w.dial(ts, "?vsn=1.0.0&apikey=x&log_level=warn", phoenix.V1),
		"?vsn=2.0.0": w.dial(ts, "?apikey=x&vsn=2.0.0", phoenix.V2),
	}
	for _, c := range clients {
		c.join("realtime:a", `{"config":{"broadcast":{"self":true}}}`)
		want(t, []msg{c.next()}, `phx_reply {"status":"ok","response":{"postgres_changes":[]}}`)
	}
	const n = 200
	big := strings.Repeat("x", 3000) // so that a backlog needs a vectored write
	for i := range n {
		clients[""].push("1", "realtime:a", "broadcast", fmt.Sprintf(`{"n":%d,"x":%q}`, i, big))
	}
	for q, c := range clients {
		for i := range n {
			if m := c.next(); !strings.HasPrefix(string(m.Payload), fmt.Sprintf(`{"n":%d,`, i)) {
				t.Fatalf("%s: message %d is %.60v", q, i, m)
			}
		}
	}
	w.stop()
	for q, c := range clients {
		c.mu.Lock()
		for c.err == nil {
			c.cond.Wait()
		}
		if c.code != 1012 {
			t.Errorf("%s: closed with %d, %v", q, c.code, c.err)
		}
		c.mu.Unlock()
	}
}

func TestHandshakeRefusals(t *testing.T) {
	upgrade := map[string]string{"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
	for _, tt := range []struct {
		name, method, query string
		id                  *sluice.Identity
		drop                string
		status              int
		body                string
		code                sluice.Code
	}{
		{"vsn", "GET", "?vsn=3.0.0", &anon, "", 403, "", sluice.CodeUnsupportedVersion},
		{"short vsn", "GET", "?vsn=2.0", &anon, "", 403, "", sluice.CodeUnsupportedVersion},
		{"vsn before the key", "GET", "?vsn=x", nil, "", 403, "", sluice.CodeUnsupportedVersion},
		{"no identity", "GET", "", nil, "", 401, `"error":"API key is missing"`, sluice.CodeMissingAPIKey},
		{"method", "POST", "", &anon, "", 400, "", ""},
		{"connection", "GET", "", &anon, "Connection", 400, "'connection'", sluice.CodeUpgradeRequired},
		{"upgrade", "GET", "", &anon, "Upgrade", 400, "'upgrade'", sluice.CodeUpgradeRequired},
		{"version", "GET", "", &anon, "Sec-WebSocket-Version", 400, "'sec-websocket-version'", sluice.CodeUpgradeRequired},
		{"key", "GET", "", &anon, "Sec-WebSocket-Key", 400, "'sec-websocket-key'", sluice.CodeUpgradeRequired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			defer w.stop()
			r := httptest.NewRequest(tt.method, "/websocket"+tt.query, nil)
			for k, v := range upgrade {
				if k != tt.drop {
					r.Header.Set(k, v)
				}
			}
			if tt.id != nil {
				r = r.WithContext(sluice.WithIdentity(r.Context(), *tt.id))
			}
			rec := httptest.NewRecorder()
			w.srv.ServeHTTP(rec, r)
			body := rec.Body.String()
			if rec.Code != tt.status || tt.body == "" && body != "" || !strings.Contains(body, tt.body) {
				t.Errorf("answer is %d %q", rec.Code, body)
			}
			if got := rec.Header().Get(sluice.HeaderCode); got != string(tt.code) {
				t.Errorf("code is %q", got)
			}
		})
	}
}

func TestMaxConns(t *testing.T) {
	w := newWorld(t, func(cfg *realtime.Config) { cfg.MaxConns = 1 })
	ts := w.gatewayed(&anon)
	c := w.dial(ts, "", phoenix.V1)
	c.push(nil, "phoenix", "heartbeat", `{}`)
	c.next()
	_, _, _, err := ws.Dial(context.Background(), "ws"+strings.TrimPrefix(ts.URL, "http")+"/websocket")
	if err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("a second socket: %v", err)
	}
}

// New refuses a configuration that cannot work, naming every mistake.
func TestConfig(t *testing.T) {
	_, err := realtime.New(realtime.Config{TokenExpiry: "never", MaxConns: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{"Logger", "Tokens", "Bus", "TokenExpiry", "MaxConns"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in %v", name, err)
		}
	}
}
