package realtime_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// kind3 makes a user broadcast push.
func kind3(joinRef, ref, topic, event string, encoding byte, payload string) []byte {
	b := []byte{3, byte(len(joinRef)), byte(len(ref)), byte(len(topic)), byte(len(event)), 0, encoding}
	return append(b, joinRef+ref+topic+event+payload...)
}

// kind4 is what want shows for a user broadcast.
func kind4(topic, event string, encoding byte, payload string) string {
	return "binary " + string([]byte{4, byte(len(topic)), byte(len(event)), 0, encoding}) + topic + event + payload
}

func (c *client) binary(b []byte) { c.t.Helper(); c.raw(ws.NewBinaryFrame(b)) }

// spec: realtime:75
func TestSelfBroadcast(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c, other, elsewhere := w.connect(v), w.connect(v), w.connect(v)
		join, _ := c.joined("realtime:a", `{"config":{"broadcast":{"self":true}}}`)
		other.joined("realtime:a", emptyJoin)
		elsewhere.joined("realtime:b", emptyJoin)
		const payload = `{"type":"broadcast","event":"hi","payload":{"a":1.50,"b":[ ]},"extra":"é"}`
		c.push(join, "realtime:a", "broadcast", payload)
		for _, x := range []*client{c, other} {
			got := x.got()
			if len(got) != 1 || got[0].Ref != nil || got[0].JoinRef != nil || got[0].Topic != "realtime:a" {
				t.Fatalf("got %v", got)
			}
			if s := string(got[0].Payload); s != payload && s != strings.ReplaceAll(payload, " ", "") {
				t.Errorf("payload is %s", s)
			}
		}
		want(t, elsewhere.got())
	})
}

// spec: realtime:85
func TestAck(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a, b := w.connect(v), w.connect(v)
		ack, _ := a.joined("realtime:a", `{"config":{"broadcast":{"ack":true,"self":true}}}`)
		quiet, _ := b.joined("realtime:a", emptyJoin)
		a.push(ack, "realtime:a", "broadcast", `{"event":"x"}`)
		want(t, a.got(), `broadcast {"event":"x"}`, okReply) // the own copy comes first
		want(t, b.got(), `broadcast {"event":"x"}`)
		b.push(quiet, "realtime:a", "broadcast", `{"event":"y"}`)
		want(t, b.got())
		want(t, a.got(), `broadcast {"event":"y"}`)
		big := `{"event":"` + strings.Repeat("x", 1600) + `"}`
		a.push(ack, "realtime:a", "broadcast", big)
		want(t, a.got(), `phx_reply {"status":"error","response":"payload_size_exceeded"}`)
		b.push(quiet, "realtime:a", "broadcast", big)
		want(t, b.got())
		want(t, a.got())
	}, func(cfg *realtime.Config) { cfg.MaxPayloadKB = 1 })
}

// spec: realtime:86
func TestSenderFormByReceiverVersion(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		sender, v1, v2 := w.connect(phoenix.V2), w.connect(phoenix.V1), w.connect(phoenix.V2)
		const topic = "realtime:a"
		join, _ := sender.joined(topic, `{"config":{"broadcast":{"ack":true}}}`)
		v1.joined(topic, emptyJoin)
		v2.joined(topic, emptyJoin)

		sender.push(join, topic, "broadcast", `{"event":"x"}`)
		want(t, v1.got(), `broadcast {"event":"x"}`)
		want(t, v2.got(), `broadcast {"event":"x"}`)
		want(t, sender.got(), okReply)

		sender.binary(kind3(join, "9", topic, "hi", 1, `{"a":1}`))
		want(t, v1.got(), `broadcast {"type":"broadcast","event":"hi","payload":{"a":1}}`)
		want(t, v2.got(), kind4(topic, "hi", 1, `{"a":1}`))
		got := sender.got()
		want(t, got, okReply)
		if got[0].Ref != "9" {
			t.Errorf("ref is %v", got[0].Ref)
		}

		sender.binary(kind3(join, "9", topic, "hi", 0, "\xde\xad"))
		want(t, v1.got())
		want(t, v2.got(), kind4(topic, "hi", 0, "\xde\xad"))
		sender.got()

		// Metadata is ignored; a payload that is no JSON is dropped, because
		// version 1.0.0 would get a broken frame.
		f := kind3(join, "9", topic, "hi", 1, `{}{"a":1}`)
		f[5] = 2
		sender.binary(f)
		want(t, v2.got(), kind4(topic, "hi", 1, `{"a":1}`))
		sender.binary(kind3(join, "9", topic, "hi", 1, `{"a":`))
		want(t, v2.got())

		v1.push("1", topic, "broadcast", `{"event":"old"}`)
		want(t, v2.got(), `broadcast {"event":"old"}`)
		want(t, v1.got(), `broadcast {"type":"broadcast","event":"hi","payload":{"a":1}}`)
	})
}

// spec: realtime:87
func TestNonObjectPayload(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		sender, v1, v2 := w.connect(phoenix.V1), w.connect(phoenix.V1), w.connect(phoenix.V2)
		join, _ := sender.joined("realtime:a", emptyJoin)
		v1.joined("realtime:a", emptyJoin)
		v2.joined("realtime:a", emptyJoin)
		sender.push(join, "realtime:a", "broadcast", `"text"`)
		sender.push(join, "realtime:a", "broadcast", `[1]`)
		sender.push(join, "realtime:a", "broadcast", `null`) // clients throw on it
		want(t, v1.got(), `broadcast "text"`, `broadcast [1]`)
		want(t, v2.got())
		sender.push(join, "realtime:a", "broadcast", `{}`)
		want(t, v2.got(), `broadcast {}`)
	})
}

// Messages of one sender arrive everywhere in their order, in every form.
func TestOrderOfOneSender(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		sender, other := w.connect(v), w.connect(v)
		join, _ := sender.joined("realtime:a", emptyJoin)
		other.joined("realtime:a", emptyJoin)
		var wants []string
		for i := range 200 {
			p := fmt.Sprintf(`{"n":%d}`, i)
			sender.push(join, "realtime:a", "broadcast", p)
			wants = append(wants, "broadcast "+p)
		}
		want(t, other.got(), wants...)
	})
}

// A V2 receiver gets the text form when a name does not fit into kind 4.
func TestLongTopic(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		topic := "realtime:" + strings.Repeat("x", 300)
		a, b := w.connect(phoenix.V2), w.connect(phoenix.V2)
		join, _ := a.joined(topic, emptyJoin)
		b.joined(topic, emptyJoin)
		a.push(join, topic, "broadcast", `{"event":"x"}`)
		want(t, b.got(), `broadcast {"event":"x"}`)
		a.join("realtime:"+strings.Repeat("x", 5000), emptyJoin)
		if got := a.got(); len(got) != 1 || !strings.Contains(string(got[0].Payload), "TopicNameRequired") {
			t.Errorf("got %.200v", got)
		}
	})
}

// Public channels need no change feed and no database.
// spec: realtime:77
func TestPublicNeedsNoDatabase(t *testing.T) {
	feed := &fakeFeed{err: errUnavailable}
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a, b := w.connect(v), w.connect(v)
		join, _ := a.joined("realtime:a", `{"config":{"broadcast":{"ack":true}}}`)
		b.joined("realtime:a", emptyJoin)
		a.push(join, "realtime:a", "broadcast", `{}`)
		want(t, a.got(), okReply)
		want(t, b.got(), `broadcast {}`)
	}, func(cfg *realtime.Config) { cfg.Feed = feed })
}

// Receivers of one protocol version share one encoding, under the topic that
// they have joined.
// spec: realtime:33
func TestEncodedOncePerVersion(t *testing.T) {
	t.Parallel()
	encoded := map[phoenix.Version]int{}
	of := realtime.Frames(func(dst []byte, v phoenix.Version) ([]byte, bool, error) {
		encoded[v]++
		return phoenix.AppendBroadcast(dst, v, "realtime:room", &sluice.Broadcast{Form: sluice.BroadcastJSON, Event: "ev", Payload: []byte("{}")})
	})
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		first := of(v)
		for range 3 {
			if again := of(v); &again[0] != &first[0] {
				t.Errorf("version %d: the second receiver has bytes of its own", v)
			}
		}
		if encoded[v] != 1 {
			t.Errorf("version %d: encoded %d times", v, encoded[v])
		}
	}
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a, b := w.connect(v), w.connect(v)
		a.joined("realtime:room", emptyJoin)
		b.joined("realtime:room", emptyJoin)
		w.srv.Deliver(&sluice.Broadcast{Topic: sluice.Topic{Name: "room"}, Form: sluice.BroadcastObject, Payload: []byte(`{"event":"ev"}`)})
		for _, c := range []*client{a, b} {
			if got := c.got(); len(got) != 1 || got[0].Topic != "realtime:room" {
				t.Errorf("got %v", got)
			}
		}
	})
}
