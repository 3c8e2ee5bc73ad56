package realtime_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// What a socket does not take at once is written by and by, whole and in order,
// and holds up nobody meanwhile.
func TestWritesInPieces(t *testing.T) {
	w := newWorld(t)
	ts := w.gatewayed(&anon)
	slow, _ := offer(t, ts.URL)
	_, _ = slow.Write(masked(ws.NewTextFrame([]byte(`["1","1","realtime:a","phx_join",{"config":{}}]`))))
	if _, text, _ := readPacked(t, slow); !strings.Contains(text, `"status":"ok"`) {
		t.Fatalf("join: %s", text)
	}
	sender, fast := w.dial(ts, "?vsn=2.0.0", phoenix.V2), w.dial(ts, "?vsn=2.0.0", phoenix.V2)
	for _, c := range []*client{sender, fast} {
		c.join("realtime:a", `{"config":{"broadcast":{"ack":true}}}`)
		want(t, []msg{c.next()}, okJoin)
	}
	const n = 250
	body := func(i int) string { return fmt.Sprintf(`{"n":%d,"x":%q}`, i, strings.Repeat("x", i*200)) }
	for i := range n {
		sender.push("1", "realtime:a", "broadcast", body(i))
		want(t, []msg{sender.next()}, okReply)
		if m := fast.next(); string(m.Payload) != body(i) {
			t.Fatalf("message %d of the fast reader is %.60v", i, m)
		}
	}
	for i := range n {
		if _, text, _ := readPacked(t, slow); text != `[null,null,"realtime:a","broadcast",`+body(i)+`]` {
			t.Fatalf("message %d is %.80s", i, text)
		}
	}
	if m := w.srv.Metrics(); m.ClosedSlow.Load() != 0 {
		t.Error("closed as slow")
	}
}

// An idle socket over TCP has no reader; everything that happens to it finds it
// all the same.
func TestParkedSockets(t *testing.T) {
	w := newWorld(t)
	ts := w.gatewayed(&anon)
	a, b := w.dial(ts, "?vsn=2.0.0", phoenix.V2), w.dial(ts, "?vsn=2.0.0", phoenix.V2)
	for range 20 {
		for _, c := range []*client{a, b} { // each message finds a parked socket
			c.join("realtime:a", `{"config":{"broadcast":{"ack":true}}}`)
			for {
				if m := c.next(); m.Event == "phx_reply" {
					break
				}
			}
		}
	}
	a.nc.Close() // the peer hangs up
	for w.srv.Metrics().Conns.Load() != 1 {
		b.push(nil, "phoenix", "heartbeat", `{}`)
		b.next()
	}
	_, _ = b.nc.Write(masked(closeFrame(1000)))
	b.mu.Lock()
	for b.err == nil {
		b.cond.Wait()
	}
	if b.code != 1000 {
		t.Errorf("closed with %d, %v", b.code, b.err)
	}
	b.mu.Unlock()
	c := w.dial(ts, "?vsn=2.0.0", phoenix.V2)
	c.join("realtime:a", emptyJoin)
	want(t, []msg{c.next()}, okJoin)
	w.stop() // this side hangs up
	c.mu.Lock()
	for c.err == nil {
		c.cond.Wait()
	}
	if c.code != 1012 {
		t.Errorf("closed with %d, %v", c.code, c.err)
	}
	c.mu.Unlock()
	if n := w.logs.count("level=ERROR"); n != 0 { // a clean end is no fault of the epoll
		t.Errorf("%d errors in the log", n)
	}
}

// An idle connection holds no goroutine, neither a reader's nor a writer's.
func TestIdleSocketsHoldNoGoroutine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("sockets are parked on Linux alone")
	}
	w := newWorld(t)
	ts := w.gatewayed(&anon)
	const n = 200
	before := runtime.NumGoroutine()
	var all []*client
	for range n {
		c := w.dial(ts, "?vsn=2.0.0", phoenix.V2) // with a goroutine of the test's
		c.join("realtime:a", `{"config":{"broadcast":{"self":true}}}`)
		want(t, []msg{c.next()}, okJoin)
		all = append(all, c)
	}
	all[0].push("1", "realtime:a", "broadcast", `{"event":"x"}`)
	for _, c := range all {
		want(t, []msg{c.next()}, `broadcast {"event":"x"}`)
	}
	extra := 0
	for range 100 { // the last ones are still on their way out
		all[0].push(nil, "phoenix", "heartbeat", `{}`)
		all[0].next()
		if extra = runtime.NumGoroutine() - before - n; extra <= 10 {
			return
		}
	}
	t.Errorf("%d goroutines for %d idle sockets", extra, n)
}

// A queue that is never empty does not grow.
func TestFlusherKeepsItsSize(t *testing.T) {
	if room := realtime.FlusherRoom(100, 1_000_000); room > 8192 {
		t.Errorf("room for %d after a million turns of 100", room)
	}
}
