package realtime_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// wantPlace compares what a client has confirmed.
func wantPlace(t *testing.T, s *fakeSub, has sluice.LSN, held bool) {
	t.Helper()
	synctest.Wait()
	if gotHas, _, gotHeld := s.state(); gotHas != has || gotHeld != held {
		t.Errorf("confirmed %s, held %v; want %s, %v", gotHas, gotHeld, has, held)
	}
}

// A pong confirms what was sent before its ping, and nothing else.
func TestPongConfirms(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.joined("realtime:a", changesJoin(""))
		sub := w.feed.subs[0]
		sub.move(100)
		time.Sleep(2500 * time.Millisecond) // between two looks
		wantPlace(t, sub, 100, false)       // nothing was sent that could be lost
		if c.pings != 0 {
			t.Errorf("%d pings of a socket that was sent nothing", c.pings)
		}

		c.setDeaf(true)
		w.feed.deliver("INSERT")
		sub.move(200)
		time.Sleep(3 * time.Second)
		wantPlace(t, sub, 100, false)
		if c.pings != 1 {
			t.Errorf("%d pings wait for their pong", c.pings)
		}
		w.feed.deliver("INSERT")
		sub.move(300)
		time.Sleep(2 * time.Second)
		c.setDeaf(false)
		c.pong(1) // of the first ping: what came behind it is not confirmed
		wantPlace(t, sub, 200, false)
		c.pong(1) // once
		c.pong(77)
		wantPlace(t, sub, 200, false)
		time.Sleep(2 * time.Second)
		wantPlace(t, sub, 300, false)
		if c.pings != 2 {
			t.Errorf("%d pings", c.pings)
		}
	})
}

// A gap is told ahead of the changes behind it, and is not passed over before its
// client has it: one that is cut off just then must be told again.
func TestGapIsConfirmed(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		gap := sluice.Refuse(sluice.CodeChangesGap)
		w.feed.told = []*sluice.Refusal{gap}
		w.feed.early = []sluice.ChangeEvent{{IDs: []int64{7}, Type: "INSERT", Data: json.RawMessage(`{}`)}}
		c := w.connect(v)
		c.setDeaf(true)
		c.join("realtime:a", changesJoin(""))
		got := c.got()
		want(t, got[1:], system("postgres_changes", "ok", "Subscribed to PostgreSQL", "a"), system("postgres_changes", "warning", gap.Explain(), "a"),
			`postgres_changes {"ids":[7],"data":{}}`)
		sub := w.feed.subs[0]
		sub.move(100)
		time.Sleep(3 * time.Second)
		wantPlace(t, sub, 0, false)
		c.setDeaf(false)
		c.pong(1)
		wantPlace(t, sub, 100, false)

		// The same of one that comes later, with no change beside it.
		c.setDeaf(true)
		sub.sub.Notify(gap)
		sub.move(200)
		time.Sleep(3 * time.Second)
		wantPlace(t, sub, 100, false)
	})
}

// Who is cut off may come back, who leaves or is thrown out may not.
func TestHeldPositions(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		for _, tt := range []struct {
			name string
			end  func(c *client, ref string)
			held bool
		}{
			{"cut", func(c *client, _ string) { c.nc.Close() }, true},
			{"closed by the client", func(c *client, _ string) { c.raw(closeFrame(1000)) }, true},
			{"left", func(c *client, ref string) { c.push(ref, "realtime:a", "phx_leave", `{}`) }, false},
			{"bad token", func(c *client, ref string) {
				c.push(ref, "realtime:a", "access_token", `{"access_token":"no.good.token"}`)
			}, false},
			{"joined again", func(c *client, ref string) { c.join("realtime:a", changesJoin("")) }, true},
			{"feed failed", func(c *client, ref string) {
				w.feed.setErr = sluice.Refuse(sluice.CodeUnableToConnect)
				c.push(ref, "realtime:a", "access_token", fmt.Sprintf(`{"access_token":%q}`, user("u", time.Hour)))
				synctest.Wait()
				w.feed.setErr = nil
			}, true},
		} {
			c := w.connect(v)
			ref, _ := c.joined("realtime:a", changesJoin(fmt.Sprintf(`,"access_token":%q`, user("u", 2*time.Hour))))
			sub := w.feed.subs[len(w.feed.subs)-1]
			sub.move(50)
			tt.end(c, ref)
			synctest.Wait()
			if _, _, held := sub.state(); held != tt.held || !sub.isClosed() {
				t.Errorf("%s: held %v, closed %v", tt.name, held, sub.isClosed())
			}
			if tt.held {
				wantPlace(t, sub, 50, true)
			}
			c.nc.Close()
			synctest.Wait()
		}
	})
}

// The feed is told how the client counts.
func TestRefsTellWhoGoesOn(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.ref = 40
		c.push(nil, "phoenix", "heartbeat", `{}`)
		c.joined("realtime:a", changesJoin(""))
		c.pushRef(nil, "17", "phoenix", "heartbeat", `{}`)
		c.pushRef(nil, "no number", "phoenix", "heartbeat", `{}`)
		c.push(nil, "phoenix", "heartbeat", `{}`)
		time.Sleep(2 * time.Second)
		s := w.feed.subs[0]
		if r := s.sub.Resume; r.First != 41 || r.From != 0 || r.Conn == 0 {
			t.Errorf("%+v", r)
		}
		if _, ref, _ := s.state(); ref != 43 {
			t.Errorf("highest number %d", ref)
		}
	})
}

// A muted channel goes on where it stopped.
func TestMutedChannelGoesOn(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		ref, _ := c.joined("realtime:a", changesJoin(fmt.Sprintf(`,"access_token":%q`, user("u", time.Minute))))
		first := w.feed.subs[0]
		first.move(500)
		for range 3 { // beyond the minute, and not idle
			time.Sleep(25 * time.Second)
			c.push(nil, "phoenix", "heartbeat", `{}`)
		}
		wantPlace(t, first, 500, true)
		c.got()
		c.push(ref, "realtime:a", "access_token", fmt.Sprintf(`{"access_token":%q}`, user("u", time.Hour)))
		synctest.Wait()
		if n := len(w.feed.subs); n != 2 {
			t.Fatalf("%d subscriptions", n)
		}
		if r := w.feed.subs[1].sub.Resume; r.From != 500 {
			t.Errorf("goes on from %s", r.From)
		}
	})
}

// What the feed says reaches the client behind the join reply, as a system message.
func TestFeedNotices(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		gap := sluice.Refuse(sluice.CodeChangesGap)
		w.feed.told = []*sluice.Refusal{gap}
		c := w.connect(v)
		_, rest := c.joined("realtime:a", changesJoin(""))
		want(t, rest, system("postgres_changes", "ok", "Subscribed to PostgreSQL", "a"), system("postgres_changes", "warning", gap.Explain(), "a"))
		w.feed.subs[0].sub.Notify(sluice.Refuse(sluice.CodeChangesResumed).WithText("Resumed"))
		want(t, c.got(), system("postgres_changes", "ok", "Resumed", "a"))
	})
}

// The feed waits for room while it sends what was missed, and is let go when the
// socket ends.
func TestRoom(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		c.joined("realtime:a", changesJoin(""))
		s := w.feed.subs[0].sub
		for range 3 {
			if err := s.Resume.Room(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		stall := make(chan struct{})
		c.stall.Store(&stall)
		deliver := func(n int) {
			for range n {
				s.Deliver(sluice.ChangeEvent{IDs: []int64{1}, Data: json.RawMessage(`{}`)})
			}
			synctest.Wait()
		}
		deliver(1)  // the frame that the client was waiting for
		deliver(1)  // the frame that the writer is stuck with
		deliver(30) // these stay in the queue
		waited := make(chan error, 1)
		go func() { waited <- s.Resume.Room(context.Background()) }()
		synctest.Wait()
		select {
		case err := <-waited:
			t.Fatalf("room in a queue that is more than half full: %v", err)
		default:
		}
		close(stall)
		if err := <-waited; err != nil {
			t.Error(err)
		}
		c.nc.Close()
		synctest.Wait()
		if err := s.Resume.Room(t.Context()); err == nil {
			t.Error("room in a socket that has ended")
		}
	}, func(cfg *realtime.Config) { cfg.QueueFrames = 40 })
}

// A client that asks is told where each change committed, and may begin there.
func TestExplicitPositions(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		join := func(topic, resume string) {
			c.join(topic, `{"config":{"sluice_resume":`+resume+`,"postgres_changes":[{"table":"t"}]}}`)
			synctest.Wait()
		}
		join("realtime:a", "true")
		join("realtime:b", `{"lsn":"1/A","index":3}`)
		join("realtime:c", `null`)
		c.got()
		if r := w.feed.subs[1].sub.Resume; r.From != 1<<32+10 || r.Index != 3 || w.feed.subs[0].sub.Resume.From != 0 {
			t.Errorf("%+v", r)
		}
		for _, s := range w.feed.subs {
			s.sub.Deliver(sluice.ChangeEvent{IDs: []int64{7}, Type: "INSERT", Data: json.RawMessage(`{"type":"INSERT"}`), At: 1<<32 + 20, Index: 5})
		}
		const told = `postgres_changes {"ids":[7],"data":{"commit_lsn":"1/14","commit_index":5,"type":"INSERT"}}`
		want(t, c.got(), told, told, `postgres_changes {"ids":[7],"data":{"type":"INSERT"}}`)
		for _, bad := range []string{`1`, `{}`, `{"lsn":"x"}`, `{"lsn":"0/0"}`, `{"lsn":"1/A","index":-1}`, `{"lsn":"1/A","index":"1"}`} {
			join("realtime:d", bad)
			if got := c.got(); len(got) != 1 || !strings.Contains(string(got[0].Payload), "config.sluice_resume") {
				t.Errorf("%s: %v", bad, got)
			}
		}
	})
}
