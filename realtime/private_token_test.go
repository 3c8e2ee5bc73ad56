package realtime_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
	"github.com/sluice-dev/sluice/token"
)

// expectTracked reads the answers to one track: the reply and, if the channel sees
// presence, its own diff, in any order.
func (c *client) expectTracked(sees bool) {
	c.t.Helper()
	got := []msg{c.next()}
	if sees {
		got = append(got, c.next())
	}
	replies, rest := split(got)
	want(c.t, replies, okReply)
	for _, m := range rest {
		diffOf(c.t, m)
	}
}

// A new token without read policy ends a private channel, and so does the loss
// of one of two reads; the words differ.
// spec: realtime:66 realtime:69 realtime:70 realtime:71 realtime:74
func TestRefreshLosesRead(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		const gone = "You no longer have permission to read from this Channel topic: room"
		for _, tt := range []struct {
			name, before, after, presence string
			text                          string // empty: the channel stays
		}{
			{"no read left", "b", "", "", noRead("room")},
			{"presence lost, broadcast stays", "bp", "b", "presence", gone},
			{"broadcast lost, presence stays", "bp", "p", "presence", gone},
			{"presence stays", "bp", "bp", "presence", ""},
			{"presence is not asked about", "bp", "b", "", ""},
			{"presence-only loses presence", "p", "", "presence", noRead("room")},
			{"presence-only becomes broadcast-only", "p", "b", "presence", gone},
		} {
			t.Run(tt.name, func(t *testing.T) {
				c := w.connect(v)
				c.join("realtime:room", private(may(tt.before, ""), tt.presence))
				c.expect(joinedReply)
				if tt.presence != "" {
					c.expect(`presence_state {}`)
				}
				before := w.logs.count("code=ChannelShutdown")
				c.refresh("realtime:room", may(tt.after, ""))
				if tt.text == "" {
					c.fence("realtime:room")
					c.quiet()
					return
				}
				c.expectShutdown(tt.text, "room")
				c.quiet()
				if w.logs.count("code=ChannelShutdown") != before+1 || w.logs.count(`role=authenticated sub=00000000-0000-4000-8000-00000000000a code=ChannelShutdown`) == 0 {
					t.Error("the shutdown is not logged with its sub")
				}
			})
		}
		// The topic's end is one channel's alone.
		c := w.connect(v)
		c.open("realtime:room", private(may("b", "")))
		c.open("realtime:other", private(may("b", "")))
		c.refresh("realtime:room", may("", ""))
		c.expectShutdown(noRead("room"), "room")
		c.fence("realtime:other")
	})
}

// spec: realtime:68
func TestRefreshChangesWrite(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		c, other := w.connect(v), w.connect(v)
		other.open("realtime:room", private(may("b", "")))
		c.open("realtime:room", private(may("b", "b"), "ack"))
		send := func() { c.push(nil, "realtime:room", "broadcast", `{"event":"e"}`) }
		send()
		c.expect(okReply)
		other.expect(`broadcast {"event":"e"}`)
		c.refresh("realtime:room", may("b", ""))
		send()
		c.fence("realtime:room")
		other.quiet()
		c.refresh("realtime:room", may("b", "bp"))
		send()
		c.expect(okReply)
		other.expect(`broadcast {"event":"e"}`)
	})
}

// What a new token may read in addition comes without a rejoin, from the refresh
// on; of presence first the state.
// spec: realtime:72
func TestRefreshGainsRead(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		speaker, c := w.connect(v), w.connect(v)
		speaker.join("realtime:room", private(may("bp", "bp"), "ack presence"))
		speaker.expect(joinedReply, `presence_state {}`)
		c.join("realtime:room", private(may("p", ""), "presence"))
		c.expect(joinedReply, `presence_state {}`)
		speaker.push(nil, "realtime:room", "broadcast", `{"n":1}`)
		speaker.expect(okReply)
		c.refresh("realtime:room", may("bp", ""))
		c.fence("realtime:room")
		speaker.push(nil, "realtime:room", "broadcast", `{"n":2}`)
		speaker.expect(okReply)
		c.expect(`broadcast {"n":2}`)

		blind := w.connect(v)
		blind.join("realtime:room", private(may("b", ""), "presence"))
		blind.expect(joinedReply)
		speaker.push(nil, "realtime:room", "presence", track(`{"n":3}`))
		speaker.expectTracked(true)
		blind.quiet()
		blind.refresh("realtime:room", may("bp", ""))
		if state := stateOf(t, blind.next()); len(state) != 1 {
			t.Errorf("state is %v", state)
		}
		blind.fence("realtime:room")
		speaker.push(nil, "realtime:room", "presence", untrack)
		speaker.expectTracked(true)
		diffOf(t, blind.next())
	})
}

// A token that was refreshed before the channel could act on anything decides
// about everything behind it, in order.
func TestRefreshIsInOrder(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		join := c.join("realtime:room", private(may("b", ""), "ack"))
		c.refresh("realtime:room", may("b", "b"))
		c.push(join, "realtime:room", "broadcast", `{"n":1}`)
		c.refresh("realtime:room", may("b", ""))
		c.push(join, "realtime:room", "broadcast", `{"n":2}`)
		c.refresh("realtime:room", may("", ""))
		c.push(join, "realtime:room", "broadcast", `{"n":3}`)
		c.expect(joinedReply, okReply)
		c.expectShutdown(noRead("room"), "room")
		c.expect(refusedReply("unmatched topic"))
		if n := w.srv.Metrics().Broadcasts.Load(); n != 1 {
			t.Errorf("%d broadcasts went out", n)
		}
	})
}

// What was tracked before the token expired comes back with a fresh one only if
// that may still write it.
func TestRetainedPresenceNeedsWrite(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		expired := jwt(map[string]any{"role": "authenticated", "exp": time.Now().Add(-time.Hour).Unix()})
		for _, write := range []string{"p", ""} {
			topic := "room" + write
			watcher, c := w.connect(v), w.connect(v)
			watcher.join("realtime:"+topic, private(may("p", ""), "presence"))
			watcher.expect(joinedReply, `presence_state {}`)
			c.join("realtime:"+topic, private(may("p", "bp"), "presence"))
			c.expect(joinedReply, `presence_state {}`)
			c.push(nil, "realtime:"+topic, "presence", track(`{"n":1}`))
			c.expectTracked(true)
			diffOf(t, watcher.next())
			c.refresh("realtime:"+topic, expired)
			if m := c.next(); m.Event != "system" || !strings.Contains(string(m.Payload), "Token has expired") {
				t.Fatalf("got %v", m)
			}
			if d := diffOf(t, watcher.next()); len(d.Leaves) != 1 {
				t.Fatalf("muting: %v", d)
			}
			c.refresh("realtime:"+topic, may("p", write))
			c.expect(system("system", "ok", "Token was refreshed; broadcasts sent while it had expired were not delivered, changes follow", topic), `presence_state {}`)
			if write == "" {
				c.fence("realtime:" + topic)
				watcher.quiet()
				continue
			}
			if d := diffOf(t, watcher.next()); len(d.Joins) != 1 {
				t.Errorf("back: %v", d)
			}
		}
	})
}

// A new token about which nothing could be found out: a policy's error is a no, as
// at the join; for the rest the client joins again by itself.
func TestRefreshUndecided(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(openPolicies + `
create policy modes on realtime.messages as restrictive for select using (case auth.jwt() ->> 'mode'
  when 'slow' then pg_sleep(60) is null when 'boom' then 1 / (length(topic) - 4) > 0 else true end)`)
	w := realWorld(t, db)
	mode := func(name string) string {
		return jwt(map[string]any{
			"role": "authenticated", "sub": "00000000-0000-4000-8000-00000000000a", "exp": time.Now().Add(time.Hour).Unix(),
			"read": []string{"broadcast"}, "mode": name,
		})
	}
	c := w.connect(phoenix.V2)
	for _, tt := range []struct{ mode, text, end string }{
		{"boom", noRead("room"), `phx_close {}`},
		{"slow", "Query was cancelled, please try again", `phx_error {"reason":"Query was cancelled, please try again"}`},
		{"no partition", ":missing_partition", `phx_error {"reason":":missing_partition"}`},
	} {
		c.open("realtime:room", private(may("b", "")))
		if tt.mode == "no partition" {
			db.Exec(noPartitions + `; drop function sluice.make_message_partitions`)
		}
		c.refresh("realtime:room", mode(tt.mode))
		c.expect(system("system", "error", tt.text, "room"), tt.end)
	}
	if w.logs.count("code=RlsPolicyError") != 1 || w.logs.count("code=UnableToSetPolicies") != 2 {
		t.Error("the log does not say why")
	}
}

// A key id that names no key of the project: the channel ends in words that name
// it, and does not crash.
// spec: realtime:65
func TestRefreshWithUnknownKey(t *testing.T) {
	t.Parallel()
	keys, err := token.New(token.Config{Secret: token.DevJWTSecret, SigningKeys: token.DevSigningKeys})
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	foreign := enc([]byte(`{"alg":"ES256","typ":"JWT","kid":"rotated-away"}`)) + "." + enc([]byte(`{"role":"authenticated","exp":99999999999}`)) + "." + enc(make([]byte, 64))
	db := pgtest.New(t)
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		w := realWorld(t, db, func(cfg *realtime.Config) { cfg.Tokens = keys })
		c := w.connect(v)
		c.open("realtime:room", emptyJoin)
		c.refresh("realtime:room", foreign)
		c.expectShutdown(`Failed to generate JWT signer for key ID (kid) "rotated-away", check your JWT secret or JWKS configuration`, "room")
		c.quiet()
		if w.logs.count("code=JwtSignerError") != 1 {
			t.Error("JwtSignerError is not logged")
		}
	}
}

// A join whose token comes a moment too late is refused and works the next time;
// a rejoin's token wins over what was pushed before it; a refresh for a channel
// that is gone disturbs nothing.
func TestTokenRaces(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.join("realtime:room", `{"config":{"private":true}}`)
		c.expect(refusedReply("Unauthorized: " + noRead("room")))
		c.refresh("realtime:room", may("b", "b"))
		c.expect(refusedReply("unmatched topic"))
		c.open("realtime:room", private(may("b", ""), "ack"))

		// The old channel gets a token that reads nothing, and at once a successor.
		c.refresh("realtime:room", may("", ""))
		c.join("realtime:room", private(may("b", "b"), "ack"))
		c.expectShutdown(noRead("room"), "room")
		c.expect(joinedReply)
		c.push(nil, "realtime:room", "broadcast", `{}`)
		c.expect(okReply)
		c.quiet()
	})
}

// Joins, leaves, refreshes, sends and tracks of many sockets on one topic, in any
// order, and sockets that end in the middle of it.
func TestPrivateChurn(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(openPolicies)
	w := realWorld(t, db, generous)
	tokens := []string{may("bp", "bp"), may("b", "p"), may("p", "b"), may("", "bp"), may("bp", "")}
	var wg sync.WaitGroup
	for n := range 12 {
		c := w.connect(phoenix.Version(1 + n%2))
		rnd := rand.New(rand.NewPCG(uint64(n), 1))
		wg.Go(func() {
			ref := "0"
			for range 60 {
				tok := tokens[rnd.IntN(len(tokens))]
				switch rnd.IntN(6) {
				case 0, 1:
					ref = c.join("realtime:room", private(tok, []string{"presence self", "ack", ""}[rnd.IntN(3)]))
				case 2:
					c.push(ref, "realtime:room", "phx_leave", `{}`)
				case 3:
					c.refresh("realtime:room", tok)
				case 4:
					c.push(ref, "realtime:room", "presence", track(fmt.Sprintf(`{"n":%d}`, rnd.IntN(3))))
				default:
					c.push(ref, "realtime:room", "broadcast", `{"event":"e"}`)
				}
			}
			if n%3 > 0 { // the others end with everything under way
				last := c.push(nil, "phoenix", "heartbeat", `{}`)
				for m := c.next(); m.Ref != last; m = c.next() {
				}
			}
			c.nc.Close()
		})
	}
	wg.Wait()
	w.stop()
	if m := w.srv.Metrics(); m.Channels.Load() != 0 || m.Conns.Load() != 0 || m.Panics.Load() != 0 || w.srv.Topics() != 0 {
		t.Errorf("%d channels, %d sockets, %d topics are left; %d panics", m.Channels.Load(), m.Conns.Load(), w.srv.Topics(), m.Panics.Load())
	}
}
