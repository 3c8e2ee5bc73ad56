package realtime_test

import (
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"

	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

func compression(cfg *realtime.Config) { cfg.Compression = true }

// offer opens a socket with the given parameters of permessage-deflate offered.
func offer(t *testing.T, addr string, offers ...wsflate.Parameters) (nc net.Conn, accepted bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var d ws.Dialer
	for _, p := range offers {
		d.Extensions = append(d.Extensions, p.Option())
	}
	nc, br, hs, err := d.Dial(ctx, "ws"+strings.TrimPrefix(addr, "http")+"/websocket?vsn=2.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if br != nil {
		t.Fatal("the server spoke first")
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	for _, ext := range hs.Extensions {
		_, server := ext.Parameters.Get("server_no_context_takeover")
		_, client := ext.Parameters.Get("client_no_context_takeover")
		if accepted = true; !server || !client {
			t.Errorf("accepted %s, with context takeover", ext.String())
		}
	}
	return nc, accepted
}

func TestCompressionIsNegotiated(t *testing.T) {
	w := newWorld(t, compression)
	ts := w.gatewayed(&anon)
	bare, small := wsflate.Parameters{}, wsflate.Parameters{ServerMaxWindowBits: 10}
	for name, tt := range map[string]struct {
		offers []wsflate.Parameters
		want   bool
	}{
		"nothing":         {nil, false},
		"bare":            {[]wsflate.Parameters{bare}, true},
		"browser":         {[]wsflate.Parameters{{ClientMaxWindowBits: 1}}, true},
		"no takeover":     {[]wsflate.Parameters{{ServerNoContextTakeover: true, ClientNoContextTakeover: true}}, true},
		"a small window":  {[]wsflate.Parameters{small}, false},
		"second is taken": {[]wsflate.Parameters{small, bare}, true},
	} {
		if _, accepted := offer(t, ts.URL, tt.offers...); accepted != tt.want {
			t.Errorf("%s: accepted %v", name, accepted)
		}
	}
	off := newWorld(t)
	if _, accepted := offer(t, off.gatewayed(&anon).URL, bare); accepted {
		t.Error("accepted although off by default")
	}
}

// deflatedBody is what a compressed message holds.
func deflatedBody(p string) []byte {
	var b bytes.Buffer
	fw, _ := flate.NewWriter(&b, flate.DefaultCompression)
	_, _ = fw.Write([]byte(p))
	_ = fw.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

// packed is a client's compressed text frame.
func packed(p string) []byte {
	f := ws.NewTextFrame(deflatedBody(p))
	f.Header.Rsv = ws.Rsv(true, false, false)
	return masked(f)
}

// readPacked returns the next frame's payload and whether it came compressed.
func readPacked(t *testing.T, nc net.Conn) (op ws.OpCode, text string, compressed bool) {
	t.Helper()
	f, err := ws.ReadFrame(nc) //lint:ignore SA1019 the peer is our own server
	if err != nil {
		t.Fatal(err)
	}
	if compressed, _ = wsflate.IsCompressed(f.Header); !compressed {
		return f.Header.OpCode, string(f.Payload), false
	}
	p, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(f.Payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
	if err != nil {
		t.Fatalf("inflate: %v", err)
	}
	return f.Header.OpCode, string(p), true
}

// A long broadcast comes compressed to who asked for that, plain to others and
// in both to a client that compresses what it sends.
func TestCompressedMessages(t *testing.T) {
	w := newWorld(t, compression)
	ts := w.gatewayed(&anon)
	a, _ := offer(t, ts.URL, wsflate.Parameters{})
	b, _ := offer(t, ts.URL, wsflate.Parameters{})
	plain := w.dial(ts, "?vsn=1.0.0", phoenix.V1)
	for _, nc := range []net.Conn{a, b} {
		_, _ = nc.Write(packed(`["1","1","realtime:a","phx_join",{"config":{"broadcast":{"self":true}}}]`))
		if _, text, compressed := readPacked(t, nc); compressed || !strings.Contains(text, `"status":"ok"`) {
			t.Fatalf("join: %s", text)
		}
	}
	plain.join("realtime:a", emptyJoin)
	want(t, []msg{plain.next()}, okJoin)

	long := strings.Repeat("many words ", 200)
	for i := range 3 { // each for itself: no context is carried over
		_, _ = a.Write(packed(fmt.Sprintf(`["1","2","realtime:a","broadcast",{"n":%d,"x":%q}]`, i, long)))
		for _, nc := range []net.Conn{a, b} {
			_, text, compressed := readPacked(t, nc)
			if want := fmt.Sprintf(`[null,null,"realtime:a","broadcast",{"n":%d,"x":%q}]`, i, long); !compressed || text != want {
				t.Errorf("compressed %v: %.100s", compressed, text)
			}
		}
		want(t, []msg{plain.next()}, fmt.Sprintf(`broadcast {"n":%d,"x":%q}`, i, long))
	}
	_, _ = a.Write(masked(ws.NewTextFrame([]byte(`["1","2","realtime:a","broadcast",{"short":1}]`))))
	if _, text, compressed := readPacked(t, b); compressed || !strings.Contains(text, "short") {
		t.Errorf("a short one, compressed %v: %s", compressed, text)
	}
}

// What cannot be inflated, or not within the limit, closes the socket.
func TestBadCompression(t *testing.T) {
	w := newWorld(t, compression, func(cfg *realtime.Config) { cfg.MaxFrame = 100_000 })
	ts := w.gatewayed(&anon)
	bad := ws.NewTextFrame([]byte("\xff\xff\xff"))
	bad.Header.Rsv = ws.Rsv(true, false, false)
	control := ws.NewPingFrame(nil)
	control.Header.Rsv = ws.Rsv(true, false, false)
	for name, tt := range map[string]struct {
		frame []byte
		code  ws.StatusCode
		offer []wsflate.Parameters
	}{
		"a bomb":         {packed(strings.Repeat("\x00", 50_000_000)), 1009, []wsflate.Parameters{{}}},
		"garbage":        {masked(bad), 1007, []wsflate.Parameters{{}}},
		"a control":      {masked(control), 1002, []wsflate.Parameters{{}}},
		"not negotiated": {packed("hello"), 1002, nil},
	} {
		nc, _ := offer(t, ts.URL, tt.offer...)
		_, _ = nc.Write(tt.frame)
		op, text, _ := readPacked(t, nc)
		if code, _ := ws.ParseCloseFrameData([]byte(text)); op != ws.OpClose || code != tt.code {
			t.Errorf("%s: got %v %d, want close %d", name, op, code, tt.code)
		}
	}
}

// Whatever a client sends as compressed is read within the limit, or refused.
func FuzzInflate(f *testing.F) {
	f.Add([]byte{0xff, 0xff, 0xff})
	f.Add(deflatedBody(strings.Repeat("many words ", 100)))
	f.Add(deflatedBody(strings.Repeat("\x00", 100_000)))
	f.Fuzz(func(t *testing.T, p []byte) {
		const limit = 10_000
		if got, err := realtime.Inflate(p, limit); err == nil && len(got) > limit {
			t.Errorf("%d bytes, over the limit of %d", len(got), limit)
		}
	})
}
