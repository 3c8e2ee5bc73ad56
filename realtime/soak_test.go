package realtime_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice/realtime"
)

// soakConns is how many connections `make soak` keeps busy, and soakPause how
// long each of them rests between two things that it does.
const (
	soakConns  = 2000
	soakTopics = 50
	soakPause  = 5 * time.Second
)

// TestSoak keeps connections busy with everything that a client does, for
// SLUICE_SOAK (a duration) in two halves. After each half all connections are
// closed; what the process holds after the second must be what it held after the
// first. `make soak` runs it; without the variable it is skipped.
func TestSoak(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("SLUICE_SOAK"))
	if err != nil {
		t.Skip("SLUICE_SOAK is not set to a duration")
	}
	w := newWorld(t, func(cfg *realtime.Config) {
		cfg.Logger = slog.New(slog.DiscardHandler)
		cfg.MaxUsers, cfg.MaxJoinsPerSecond, cfg.MaxEventsPerSecond = realtime.Unlimited, realtime.Unlimited, realtime.Unlimited
		cfg.MaxPresencePerSecond, cfg.MaxPresenceCalls = realtime.Unlimited, realtime.Unlimited
	})
	ts := w.gatewayed(&anon)
	soak(t, strings.TrimPrefix(ts.URL, "http://"), time.Second) // pools and tables have their size
	w.drained(t)
	var goroutines [2]int
	var heap [2]int64
	for half := range goroutines {
		soak(t, strings.TrimPrefix(ts.URL, "http://"), d/2)
		w.drained(t)
		goroutines[half] = runtime.NumGoroutine()
		heap[half], _ = memory()
		m := w.srv.Metrics()
		t.Logf("half %d: %d goroutines, %d KB of heap; so far %d sockets, %d joins, %d broadcasts, %d deliveries",
			half+1, goroutines[half], heap[half]/1024, m.Accepted.Load(), m.Joins.Load(), m.Broadcasts.Load(), m.Delivered.Load())
	}
	if goroutines[1] > goroutines[0]+5 {
		t.Errorf("%d goroutines after the first half, %d after the second", goroutines[0], goroutines[1])
	}
	if heap[1] > heap[0]+heap[0]/5+(1<<20) {
		t.Errorf("%d bytes of heap after the first half, %d after the second", heap[0], heap[1])
	}
	for _, m := range gather(t, w.srv) {
		if m.name == "sluice_realtime_panics_total" && m.value > 0 {
			t.Errorf("%v panics", m.value)
		}
	}
}

// drained waits until the server holds nothing any more.
func (w *world) drained(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for {
		m := w.srv.Metrics()
		if m.Conns.Load() == 0 && m.Channels.Load() == 0 && m.Held.Load() == 0 && w.srv.Topics() == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("after 30 s there are %d sockets, %d channels, %d topics", m.Conns.Load(), m.Channels.Load(), w.srv.Topics())
		}
	}
	if n := w.metric("users", ""); n != 0 {
		t.Errorf("%v users are left", n)
	}
}

// soak runs soakConns clients for d and returns when all have ended.
func soak(t *testing.T, addr string, d time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var clients sync.WaitGroup
	for i := range soakConns {
		clients.Go(func() { // ends with ctx
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for ctx.Err() == nil {
				if err := soakClient(ctx, addr, rnd); err != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// soakClient is the life of one connection: between one and forty actions.
func soakClient(ctx context.Context, addr string, rnd *rand.Rand) error {
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	var reader sync.WaitGroup
	defer reader.Wait()
	defer nc.Close()
	u := &url.URL{Scheme: "ws", Host: addr, Path: "/websocket", RawQuery: "vsn=2.0.0"}
	if _, _, err := (ws.Dialer{}).Upgrade(nc, u); err != nil {
		return err
	}
	reader.Go(func() { _, _ = io.Copy(io.Discard, nc) }) // ends with nc
	pause := time.NewTicker(soakPause/2 + rand.N(soakPause))
	defer pause.Stop()
	topic := func() string { return fmt.Sprintf("realtime:%d", rnd.IntN(soakTopics)) }
	mine := topic()
	for i := range 1 + rnd.IntN(40) {
		event, payload := "phx_join", fmt.Sprintf(`{"config":{"presence":{"enabled":true},"broadcast":{"ack":true}},"access_token":%q}`, user("u", time.Hour))
		action := 0 // joining comes first
		if i > 0 {
			action = rnd.IntN(8)
		}
		switch action {
		case 0:
			mine = topic()
		case 1:
			event, payload = "phx_leave", `{}`
		case 2:
			event, payload = "presence", track(fmt.Sprintf(`{"n":%d}`, rnd.IntN(100)))
		case 3:
			event, payload = "presence", untrack
		case 4:
			event, payload = "access_token", tokenPush(user("u", time.Duration(1+rnd.IntN(3600))*time.Second))
		case 5:
			if rnd.IntN(4) == 0 {
				return nil // gone without a word
			}
			fallthrough
		case 6, 7:
			event, payload = "broadcast", fmt.Sprintf(`{"event":"x","payload":%q}`, strings.Repeat("x", rnd.IntN(2000)))
		}
		if _, err := nc.Write(masked(ws.NewTextFrame(fmt.Appendf(nil, `["1","1",%q,%q,%s]`, mine, event, payload)))); err != nil {
			return fmt.Errorf("send %s: %w", event, err)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil
		}
	}
	_, err = nc.Write(masked(closeFrame(1000)))
	return err
}
