package realtime

import (
	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// broadcast relays a client's message to its topic.
func (ch *channel) broadcast(m *phoenix.Message) {
	c := ch.conn
	b := sluice.Broadcast{Topic: ch.key, Payload: m.Payload}
	size := len(m.Payload)
	switch {
	case m.Form == phoenix.BinaryPush:
		// Receivers would get kind 2, on which realtime-js throws.
		c.srv.metrics.DroppedUnknown.Add(1)
		return
	case m.Form == phoenix.UserBroadcast:
		b.Form, b.Event = sluice.BroadcastBinary, m.UserEvent
		if m.JSON {
			b.Form = sluice.BroadcastJSON
		}
		size += len(m.UserEvent) + len(m.Metadata)
	case phoenix.IsNull(m.Payload):
		// realtime-js throws on a payload that is null.
		c.srv.metrics.DroppedUnknown.Add(1)
		return
	}
	if ch.expired {
		c.srv.metrics.DroppedMuted.Add(1)
		return // no ack: the client's push times out
	}
	if ch.key.Private && ch.rights.write[broadcasts] != granted {
		ch.withheld(m)
		return
	}
	c.srv.limits.events.add(1)
	if size > c.srv.cfg.maxPayload() {
		c.srv.metrics.DroppedOversize.Add(1)
		if ch.ack {
			ch.reply(m.Ref, phoenix.StatusError, []byte(`"payload_size_exceeded"`))
		}
		return
	}
	if !ch.self {
		b.Sender = ch.id
	}
	if err := c.srv.hub.Publish(c.srv.ctx, &b); err != nil {
		c.srv.log.Warn("publish broadcast", append(c.logAttrs(ch), sluice.LogError, err)...)
		return
	}
	if ch.ack {
		ch.reply(m.Ref, phoenix.StatusOK, emptyResponse)
	}
}

// withheld asks whether a message may be sent, or drops it: there is no ack, and
// the client's push times out.
func (ch *channel) withheld(m *phoenix.Message) {
	drop := func(*phoenix.Message) { ch.conn.srv.metrics.DroppedDenied.Add(1) }
	if ch.rights.write[broadcasts] == denied {
		drop(m)
		return
	}
	ch.askWrite(m, broadcasts, ch.broadcast, drop)
}
