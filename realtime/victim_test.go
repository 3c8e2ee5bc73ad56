package realtime_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// victim is a well-behaved pair on the topic that offenders use too: whatever
// they do, each message of the sender reaches the receiver, in order.
type victim struct {
	w                *world
	sender, receiver *client
	join             string
	sent, got        int
}

func newVictim(w *world) *victim {
	v := &victim{w: w, sender: w.connect(phoenix.V2), receiver: w.connect(phoenix.V1)}
	v.join, _ = v.sender.joined("realtime:a", emptyJoin)
	v.receiver.joined("realtime:a", emptyJoin)
	return v
}

// talk sends n messages and sees that they arrive.
func (v *victim) talk(t *testing.T, n int) {
	t.Helper()
	for range n {
		v.sent++
		v.sender.push(v.join, "realtime:a", "broadcast", fmt.Sprintf(`{"victim":%d}`, v.sent))
		synctest.Wait()
	}
	for _, m := range v.receiver.got() {
		if m.Event == "broadcast" && strings.Contains(string(m.Payload), "victim") {
			v.got++
			if want := fmt.Sprintf(`{"victim":%d}`, v.got); string(m.Payload) != want {
				t.Fatalf("the victim got %s, want %s", m.Payload, want)
			}
		}
	}
	if v.got != v.sent {
		t.Fatalf("the victim got %d of %d messages", v.got, v.sent)
	}
}

// rest lets d pass while the victim talks.
func (v *victim) rest(t *testing.T, d time.Duration) {
	t.Helper()
	for ; d > 0; d -= 10 * time.Second {
		pass(min(d, 10*time.Second))
		v.receiver.push(nil, "phoenix", "heartbeat", `{}`)
		v.talk(t, 1)
	}
}

// write sends a text frame on a raw pipe, in the background: an offender that
// blocks must not block the test. It ends with the socket.
func (w *world) write(nc net.Conn, frames ...string) {
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		for _, f := range frames {
			if _, err := nc.Write(masked(ws.NewTextFrame([]byte(f)))); err != nil {
				return
			}
		}
	}()
	synctest.Wait()
}

const rawJoin = `["1","1","realtime:a","phx_join",{"config":{"broadcast":{"ack":true},"presence":{"enabled":true,"key":"o"}}}]`

// One connection's misbehaviour harms no other, and ends with its reason.
func TestOneHarmsNoOther(t *testing.T) {
	repeat := func(n int, f func(i int) string) (out []string) {
		for i := range n {
			out = append(out, f(i))
		}
		return out
	}
	for name, tt := range map[string]struct {
		offend func(t *testing.T, w *world, v *victim)
		metric string // name and label of what counts it
		label  string
	}{
		"takes nothing": {func(t *testing.T, w *world, v *victim) {
			w.write(w.stalled(phoenix.V2), rawJoin)
			v.talk(t, 100)
		}, "closed_total", "slow_reader"},
		"sends and never reads": {func(t *testing.T, w *world, v *victim) {
			ack := repeat(500, func(i int) string {
				return fmt.Sprintf(`["1","%d","realtime:alone","broadcast",{"n":1}]`, i)
			})
			w.write(w.stalled(phoenix.V2), append([]string{strings.Replace(rawJoin, "realtime:a", "realtime:alone", 1)}, ack...)...)
			v.talk(t, 10)
		}, "closed_total", "slow_reader"},
		"half open": {func(t *testing.T, w *world, v *victim) {
			w.write(w.stalled(phoenix.V2), `["1","1","realtime:alone","phx_join",{"config":{}}]`)
			v.rest(t, 70*time.Second)
		}, "closed_total", "slow_reader"}, // the reply hangs
		"half open and quiet": {func(t *testing.T, w *world, v *victim) {
			w.stalled(phoenix.V2)
			v.rest(t, 70*time.Second)
		}, "closed_total", "idle"},
		"floods joins": {func(t *testing.T, w *world, v *victim) {
			c := w.connect(phoenix.V2)
			for i := range 300 {
				c.join(fmt.Sprintf("realtime:%d", i), emptyJoin)
				c.got()
			}
			v.talk(t, 10)
			v.rest(t, 5*time.Second)
			c.join("realtime:a", emptyJoin)
			if code, _ := c.closed(); code != 1001 {
				t.Errorf("closed with %d", code)
			}
		}, "closed_total", "joins_rate"},
		"floods presence": {func(t *testing.T, w *world, v *victim) {
			c := w.connect(phoenix.V2)
			join, _ := c.joined("realtime:a", presenceJoin("o"))
			for i := range 100 {
				c.push(join, "realtime:a", "presence", track(fmt.Sprintf(`{"n":%d}`, i)))
				synctest.Wait() // or it would be closed as a slow reader
			}
			v.talk(t, 10)
			got := fmt.Sprint(c.got())
			if !strings.Contains(got, "Client presence rate limit exceeded") || !strings.Contains(got, "phx_close") {
				t.Errorf("the offender got %s", got)
			}
		}, "channels_shut_total", "presence_rate"},
		"megabytes": {func(t *testing.T, w *world, v *victim) {
			c := w.connect(phoenix.V2)
			join, _ := c.joined("realtime:a", `{"config":{"broadcast":{"ack":true}}}`)
			for range 5 {
				c.push(join, "realtime:a", "broadcast", `{"x":"`+strings.Repeat("x", 1_000_000)+`"}`)
				v.talk(t, 1)
			}
			for _, m := range c.got() {
				if m.Event == "phx_reply" && !strings.Contains(string(m.Payload), "payload_size_exceeded") {
					t.Errorf("the offender got %v", m)
				}
			}
		}, "dropped_total", "oversize"},
		"a frame too large": {func(t *testing.T, w *world, v *victim) {
			c := w.connect(phoenix.V2)
			w.wg.Add(1)
			go func() {
				defer w.wg.Done()
				_, _ = c.nc.Write(masked(ws.NewTextFrame(make([]byte, 3_000_000))))
			}()
			v.talk(t, 10)
			if code, _ := c.closed(); code != 1009 {
				t.Errorf("closed with %d", code)
			}
		}, "closed_total", "protocol"},
		"odd topics": {func(t *testing.T, w *world, v *victim) {
			c := w.connect(phoenix.V2)
			topics := []string{
				"", "phoenix", "realtime", "realtime:", "REALTIME:a", "realtime:" + strings.Repeat("x", 5000), "realtime:\x00", "realtime:\u202e",
				"realtime:😀", "realtime:a\n", "realtime:%", "realtime:../a", `realtime:"`, "realtime:a:b:c:d:e", "realtime:'; drop table x; --",
			}
			for _, topic := range topics {
				c.join(topic, emptyJoin)
				c.push("1", topic, "broadcast", `{"event":"x"}`)
				c.push("1", topic, "\u0000", `{}`)
				c.push("1", topic, "phx_leave", `{}`)
				if got := c.got(); len(got) == 0 || got[0].Event != "phx_reply" {
					t.Errorf("topic %.30q: %v", topic, got)
				}
				v.talk(t, 1)
			}
			c.text(`["1","1","realtime:a` + "\xff" + `","phx_join",{}]`)
			c.push(nil, "phoenix", "heartbeat", `{}`)
			want(t, c.got(), okReply)
		}, "dropped_total", "malformed"},
		"talks before the reply": {func(t *testing.T, w *world, v *victim) {
			w.feed.gate = make(chan struct{})
			c := w.connect(phoenix.V2)
			c.join("realtime:a", changesJoin(""))
			for range 50 {
				c.push("1", "realtime:a", "broadcast", `{"event":"x"}`)
			}
			if code, reason := c.closed(); code != 1008 || reason == "" {
				t.Errorf("closed with %d %q", code, reason)
			}
			v.talk(t, 10)
			close(w.feed.gate)
		}, "closed_total", "flood_before_join"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				v := newVictim(w)
				v.talk(t, 5)
				tt.offend(t, w, v)
				v.talk(t, 5)
				v.rest(t, 20*time.Second)
				if n := w.metric(tt.metric, tt.label); n == 0 {
					t.Errorf("%s %s is 0: nothing says what became of the offender", tt.metric, tt.label)
				}
				for _, c := range []*client{v.sender, v.receiver} {
					if code, _ := c.closed(); code != 0 {
						t.Errorf("the victim was closed with %d", code)
					}
				}
			}, func(cfg *realtime.Config) {
				cfg.QueueFrames, cfg.HeldFrames = 50, 20
				cfg.MaxPayloadKB, cfg.MaxFrame, cfg.MaxJoinsPerSecond = 100, 2_000_000, 20
			})
		})
	}
}
