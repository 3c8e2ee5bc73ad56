package realtime_test

import (
	"testing"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

const trackRefused = `phx_reply {"status":"error","response":{}}`

// Without presence write a track is answered with an error and shown to nobody;
// others' presence is seen all the same, and untrack is always allowed.
// spec: realtime:114
func TestTrackNeedsWrite(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		c, other := w.connect(v), w.connect(v)
		c.join("realtime:room", private(may("p", "b"), "presence"))
		c.expect(joinedReply, `presence_state {}`)
		other.join("realtime:room", private(may("p", "p"), "presence"))
		other.expect(joinedReply, `presence_state {}`)
		for range 2 {
			c.push(nil, "realtime:room", "presence", track(`{"n":1}`))
			c.expect(trackRefused)
		}
		c.push(nil, "realtime:room", "presence", untrack)
		c.expect(okReply)
		other.quiet()
		other.push(nil, "realtime:room", "presence", track(`{"n":2}`))
		other.expectTracked(true)
		if d := diffOf(t, c.next()); len(d.Joins) != 1 {
			t.Errorf("diff is %v", d)
		}
	})
}

// Presence-only policies: join and track work, no broadcast comes in or gets out.
// spec: realtime:115
func TestPresenceOnly(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		c, other := w.connect(v), w.connect(v)
		c.join("realtime:room", private(may("p", "p"), "presence ack self"))
		c.expect(joinedReply, `presence_state {}`)
		other.join("realtime:room", private(may("bp", "bp"), "presence ack"))
		other.expect(joinedReply, `presence_state {}`)
		c.push(nil, "realtime:room", "presence", track(`{"n":1}`))
		c.expectTracked(true)
		diffOf(t, other.next())
		c.push(nil, "realtime:room", "broadcast", `{"event":"e"}`)
		c.fence("realtime:room")
		other.push(nil, "realtime:room", "broadcast", `{"event":"e"}`)
		other.expect(okReply)
		c.quiet()
		other.quiet()
	})
}

// Who may not read presence gets neither state nor diffs, not even of what it
// tracks itself; also where a track turns presence on. Who may gets diffs from
// that track on, but no state.
// spec: realtime:116
func TestAutoEnabledPresence(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		asked, blind, seeing, other := w.connect(v), w.connect(v), w.connect(v), w.connect(v)
		asked.open("realtime:room", private(may("b", "p"), "presence"))
		blind.open("realtime:room", private(may("b", "p")))
		seeing.open("realtime:room", private(may("bp", "p")))
		other.join("realtime:room", private(may("p", "p"), "presence"))
		other.expect(joinedReply, `presence_state {}`)
		track1 := track(`{"n":1}`)

		other.push(nil, "realtime:room", "presence", track1)
		other.expectTracked(true)
		for _, c := range []*client{asked, blind, seeing} {
			c.quiet()
		}
		for _, c := range []*client{asked, blind} {
			c.push(nil, "realtime:room", "presence", track1)
			c.expectTracked(false)
			diffOf(t, other.next())
		}
		seeing.quiet()
		seeing.push(nil, "realtime:room", "presence", track1)
		seeing.expectTracked(true)
		diffOf(t, other.next())
		blind.push(nil, "realtime:room", "presence", untrack)
		blind.expect(okReply)
		diffOf(t, other.next())
		diffOf(t, seeing.next())
		asked.quiet()
		blind.quiet()
		// A new token that may read presence: the state, for who wanted it.
		blind.refresh("realtime:room", may("bp", "p"))
		if state := stateOf(t, blind.next()); len(state) != 3 {
			t.Errorf("state is %v", state)
		}
	})
}

// Without a database a private track is answered with an error and shown to
// nobody; public presence goes on.
// spec: realtime:119
func TestTrackWithoutDatabase(t *testing.T) {
	t.Parallel()
	db := pgtest.Private(t)
	db.Exec(openPolicies)
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		w := realWorld(t, db)
		c, other := w.connect(v), w.connect(v)
		for _, x := range []*client{c, other} {
			x.join("realtime:room", private(may("bp", "bp"), "presence ack"))
			x.expect(joinedReply, `presence_state {}`)
			x.open("realtime:public", emptyJoin)
		}
		db.StopServer()
		c.push(nil, "realtime:room", "presence", track(`{"n":1}`))
		c.expect(trackRefused)
		other.quiet()
		if w.logs.count("code=UnableToHandlePresence") != 1 {
			t.Error("UnableToHandlePresence is not logged")
		}
		c.push(nil, "realtime:public", "presence", track(`{"n":1}`))
		c.expectTracked(true)
		diffOf(t, other.next())

		// Sends are dropped; the topic's members stay, and join again by themselves
		// when a new token cannot be judged.
		other.push(nil, "realtime:room", "broadcast", `{}`)
		other.fence("realtime:room")
		c.quiet()
		if w.logs.count("code=UnableToHandleBroadcast") != 1 {
			t.Error("UnableToHandleBroadcast is not logged")
		}
		other.refresh("realtime:room", may("pb", "bp"))
		const text = "Realtime was unable to connect to the project database"
		other.expect(system("system", "error", text, "room"), `phx_error {"reason":"`+text+`"}`)
		db.StartServer()
	}
}
