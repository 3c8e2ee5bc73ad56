package realtime_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// spec: realtime:50
func TestHeartbeat(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		ref := c.push(nil, "phoenix", "heartbeat", `{}`)
		got := c.got()
		want(t, got, okReply)
		if got[0].Topic != "phoenix" || got[0].Ref != ref || got[0].JoinRef != nil {
			t.Errorf("reply is %v", got[0])
		}
		c.push(nil, "phoenix", "other", `{}`)
		want(t, c.got(), refusedReply("unmatched topic"))
	})
}

// spec: realtime:34
func TestJoinNeedsTopicName(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.join("realtime:", `{"config":{"presence":{"enabled":true}}}`)
		want(t, c.got(), refusedReply("TopicNameRequired: You must provide a topic name"))
	})
}

// spec: realtime:35 realtime:36 realtime:40
func TestJoinWithoutChanges(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		for i, cfg := range []string{
			`{}`, `{"postgres_changes":[]}`, `{"postgres_changes":[null]}`, `{"postgres_changes":null}`,
			`{"postgres_changes":"all"}`, `{"presence":{"key":"k"}}`,
		} {
			c.join(fmt.Sprint("realtime:", i), `{"config":`+cfg+`}`)
			want(t, c.got(), `phx_reply {"status":"ok","response":{"postgres_changes":[]}}`)
		}
	})
}

func TestUnmatchedTopic(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.join("room1", emptyJoin)
		c.push("1", "realtime:room1", "broadcast", `{}`)
		c.push("1", "realtime:room1", "access_token", `{"access_token":"x"}`)
		want(t, c.got(), refusedReply("unmatched topic"), refusedReply("unmatched topic"), refusedReply("unmatched topic"))
	})
}

// spec: realtime:53
func TestLeave(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		join, _ := c.joined("realtime:a", emptyJoin)
		if w.srv.Topics() != 1 {
			t.Error("not subscribed")
		}
		if v == phoenix.V2 {
			c.push("99", "realtime:a", "phx_leave", `{}`) // of another join
			c.push(nil, "realtime:a", "phx_leave", `{}`)
			want(t, c.got())
		}
		ref := c.push(join, "realtime:a", "phx_leave", `{}`)
		got := c.got()
		want(t, got, okReply, `phx_close {}`)
		if got[0].Ref != ref || got[1].Ref != join {
			t.Errorf("refs of %v, want %s and %s", got, ref, join)
		}
		if v == phoenix.V2 && (got[0].JoinRef != join || got[1].JoinRef != join) {
			t.Errorf("join refs of %v", got)
		}
		if w.srv.Topics() != 0 {
			t.Error("still subscribed")
		}
		c.push(join, "realtime:a", "phx_leave", `{}`) // not joined: ok all the same
		want(t, c.got(), okReply)
	})
}

// A topic joined again on one socket: the new reply, then the old phx_close.
func TestRejoinReplaces(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		first, _ := c.joined("realtime:a", emptyJoin)
		second := c.join("realtime:a", `{"config":{"broadcast":{"self":true}}}`)
		got := c.got()
		want(t, got, `phx_reply {"status":"ok","response":{"postgres_changes":[]}}`, `phx_close {}`)
		if got[0].Ref != second || got[1].Ref != first {
			t.Errorf("refs: %v", got)
		}
		c.push(second, "realtime:a", "broadcast", `{"event":"x"}`)
		want(t, c.got(), `broadcast {"event":"x"}`) // one copy, not two
	})
}

// spec: realtime:46
func TestManyRejoins(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		const n = 1500
		for range n {
			c.join("realtime:a", emptyJoin)
		}
		ok, closed := 0, 0
		for _, m := range c.got() {
			switch {
			case m.Event == "phx_reply" && strings.Contains(string(m.Payload), `"ok"`):
				ok++
			case m.Event == "phx_close":
				closed++
			}
		}
		if ok != n || closed != n-1 {
			t.Errorf("%d replies and %d closes, want %d and %d", ok, closed, n, n-1)
		}
	})
}

// spec: realtime:37 realtime:38
func TestJoinLeniency(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		join, _ := c.joined("realtime:a", `{"config":{"broadcast":{"self":"TRUE","ack":"False"},"presence":{"enabled":"true"}}}`)
		c.push(join, "realtime:a", "broadcast", `{"event":"x"}`)
		want(t, c.got(), `broadcast {"event":"x"}`)
		if w.logs.count("InvalidJoinPayload") != 0 {
			t.Error("flexible booleans are logged as invalid")
		}
		_, rest := c.joined("realtime:b", `{"config":{"broadcast":{"self":1,"ack":"test"},"presence":[],"private":null},"access_token":17}`)
		want(t, rest)
		c.join("realtime:c", `{"config":{"broadcast":{"replay":123}}}`) // on a public channel, whatever its form
		want(t, c.got(), refusedReply("UnableToReplayMessages: Replay is not allowed for public channels"))
		if w.logs.count("InvalidJoinPayload") != 2 {
			t.Error("invalid parts are not logged once for each join")
		}
		for _, text := range []string{
			"private: unable to parse, expected boolean", "broadcast.self: unable to parse, expected boolean", "broadcast.ack: unable to parse, expected boolean",
			"broadcast.replay: unable to parse, expected map", "presence: unable to parse, expected map", "access_token: unable to parse, expected string",
		} {
			if w.logs.count(text) != 1 {
				t.Errorf("log lacks %q", text)
			}
		}
		for _, bad := range []string{`[]`, `"x"`, `{"config":[]}`, `{"config":{"broadcast":"x"}}`, `{"config":{"postgres_changes":["x"]}}`} {
			c.join("realtime:c", bad)
			got := c.got()
			if len(got) != 1 || !strings.Contains(string(got[0].Payload), `"reason":"UnknownErrorOnChannel: `) {
				t.Errorf("join %s: %v", bad, got)
			}
		}
	})
}

// spec: realtime:43
func TestChannelsPerClient(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		first, _ := c.joined("realtime:a", emptyJoin)
		c.join("realtime:b", emptyJoin)
		want(t, c.got(), refusedReply("ChannelRateLimitReached: Too many channels"))
		c.joined("realtime:a", emptyJoin) // the same topic takes no further place
		c.push(fmt.Sprint(c.ref), "realtime:a", "phx_leave", `{}`)
		c.got()
		c.joined("realtime:b", emptyJoin)
		_ = first
	}, func(cfg *realtime.Config) { cfg.MaxChannels = 1 })
}

// spec: realtime:51
func TestStaleJoinRefIsServed(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		join, _ := c.joined("realtime:a", `{"config":{"broadcast":{"ack":true}}}`)
		for _, stale := range []any{"999", nil} {
			ref := c.push(stale, "realtime:a", "broadcast", `{"event":"x"}`)
			got := c.got()
			want(t, got, okReply)
			if got[0].Ref != ref || v == phoenix.V2 && got[0].JoinRef != join {
				t.Errorf("reply is %v", got[0])
			}
			c.push(stale, "realtime:a", "presence", fmt.Sprintf(`{"event":"track","payload":{"n":%q}}`, fmt.Sprint(stale)))
			got = c.got()
			if len(got) != 2 || got[0].Event != "presence_diff" || got[1].Event != "phx_reply" {
				t.Errorf("track: %v", got)
			}
		}
	})
}

// Without a database private joins are refused, never let in unchecked.
func TestPrivateNeedsDatabase(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		for _, private := range []string{`true`, `"TRUE"`} {
			c.join("realtime:a", `{"config":{"private":`+private+`}}`)
			want(t, c.got(), refusedReply("UnableToConnectToProject: Realtime was unable to connect to the project database"))
		}
	})
}

// Explain mode: the socket opens, every join is answered with the refusal and
// its remedy, and heartbeats go on.
func TestExplainedRefusal(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		refusal := sluice.Refuse(sluice.CodeInvalidAPIKey)
		c := w.connect(v, sluice.Identity{Refusal: refusal})
		for range 2 {
			c.join("realtime:a", emptyJoin)
			want(t, c.got(), refusedReply(refusal.Explain()))
		}
		c.push(nil, "phoenix", "heartbeat", `{}`)
		want(t, c.got(), okReply)
		c.push("1", "realtime:a", "broadcast", `{}`)
		want(t, c.got(), refusedReply("unmatched topic"))
		if code, _ := c.closed(); code != 0 {
			t.Errorf("closed with %d", code)
		}
	}, func(cfg *realtime.Config) { cfg.Explain = true })
}

// Stopping tells every channel, closes every socket with 1012, and nothing else.
//
// spec: realtime:49
func TestStop(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c, idle := w.connect(v), w.connect(v)
		var told []string
		for i := range 10 {
			c.joined(fmt.Sprintf("realtime:%d", i), emptyJoin)
			told = append(told, `system {"extension":"system","status":"ok","message":"Server requested disconnect"}`)
		}
		start := time.Now()
		w.stop()
		got := c.got()
		want(t, got, told...)
		for i, m := range got {
			if m.Topic != fmt.Sprintf("realtime:%d", i) || m.JoinRef != nil || m.Ref != nil {
				t.Errorf("message %d is %v", i, m)
			}
		}
		for _, x := range []*client{c, idle} {
			if code, reason := x.closed(); code != 1012 || reason != "" {
				t.Errorf("closed with %d %q", code, reason)
			}
			if got := x.got(); len(got) > 0 {
				t.Errorf("got %v", got)
			}
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("took %s", d)
		}
		if w.srv.Topics() != 0 || w.srv.Metrics().Conns.Load() != 0 || w.srv.Metrics().Channels.Load() != 0 {
			t.Error("something is left")
		}
	})
}
