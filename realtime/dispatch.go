package realtime

import (
	"bytes"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// emptyResponse is the response of a reply that has nothing to say.
var emptyResponse = []byte("{}")

const reasonUnmatched = "unmatched topic"

// handle acts on one message. Called with handleMu held; it does not block.
// Messages of a channel whose join or refresh is under way wait for it, in
// order, while those of other channels go on.
func (c *conn) handle(m *phoenix.Message) {
	if c.finished {
		return
	}
	ch := c.channel(m.Topic)
	if ch != nil && ch.work != nil {
		c.hold(ch, m)
		return
	}
	switch {
	case m.Topic == phoenix.TopicHeartbeat && m.Event == phoenix.EventHeartbeat:
		c.reply("", m.Ref, m.Topic, phoenix.StatusOK, emptyResponse)
	case m.Event == phoenix.EventJoin && m.Form == phoenix.Text:
		c.join(ch, m)
	case m.Event == phoenix.EventLeave:
		c.leave(ch, m)
	case ch == nil:
		c.refuse("", m.Ref, m.Topic, reasonUnmatched)
	case m.Event == phoenix.EventBroadcast:
		ch.broadcast(m)
	case m.Event == phoenix.EventPresence && m.Form == phoenix.Text:
		ch.presencePush(m)
	case m.Event == phoenix.EventAccessToken && m.Form == phoenix.Text:
		ch.accessToken(m)
	default:
		c.srv.limits.events.add(1)
		c.srv.metrics.DroppedUnknown.Add(1)
	}
}

// hold keeps a message until ch's slow step is done. A leave or another join
// of the topic makes that step pointless and ends it early, unless a message
// before it needs the answer.
func (c *conn) hold(ch *channel, m *phoenix.Message) {
	w := ch.work
	if len(w.held) >= c.srv.cfg.HeldFrames || w.heldBytes+len(m.Payload) > c.srv.cfg.HeldBytes {
		c.srv.metrics.ClosedHeld.Add(1)
		c.close(ws.StatusPolicyViolation, "too many messages before the join was answered")
		return
	}
	kept := keep(m)
	w.held = append(w.held, kept)
	w.heldBytes += len(kept.Payload)
	c.srv.metrics.Held.Add(1)
	if !w.needed && (m.Event == phoenix.EventJoin || m.Event == phoenix.EventLeave && m.JoinRef == ch.joinRef) {
		w.cancel()
	}
}

// keep copies a message, whose payload is the reader's.
func keep(m *phoenix.Message) phoenix.Message {
	kept := *m
	kept.Payload = bytes.Clone(m.Payload)
	kept.Metadata = nil
	return kept
}

// leave ends a channel: reply, then phx_close. A leave that names another join
// of the topic is ignored: it is about a channel that is gone already.
func (c *conn) leave(ch *channel, m *phoenix.Message) {
	if ch == nil {
		c.reply(m.JoinRef, m.Ref, m.Topic, phoenix.StatusOK, emptyResponse)
		return
	}
	if m.JoinRef != ch.joinRef {
		return
	}
	c.drop(ch, false)
	c.reply(m.JoinRef, m.Ref, m.Topic, phoenix.StatusOK, emptyResponse)
	ch.sendClose(ch.joinRef)
}

// drop takes ch off the socket: nothing is delivered to it afterwards. With hold
// its client may come back for what it missed.
func (c *conn) drop(ch *channel, hold bool) {
	ch.terminate(hold)
	for i, other := range c.channels {
		if other == ch {
			c.channels = append(c.channels[:i], c.channels[i+1:]...)
			break
		}
	}
	c.rearm()
}

// countChannels remembers since when a socket that joined, or tried to, has had
// no channel.
func (c *conn) countChannels() {
	switch {
	case len(c.channels) > 0:
		c.emptyAt.Store(0)
	case c.emptyAt.Load() == 0:
		c.emptyAt.Store(c.srv.now())
	}
}

// rearm sets the time of the next look at tokens.
func (c *conn) rearm() {
	c.countChannels()
	next := int64(0)
	for _, ch := range c.channels {
		if ch.expires != 0 && !ch.expired && (next == 0 || ch.expires < next) {
			next = ch.expires
		}
	}
	c.checkAt.Store(next)
}

// shutdown ends a channel for a reason: system error, then phx_close. Stock
// clients do not come back by themselves after it.
func (c *conn) shutdown(ch *channel, extension, text string) {
	c.srv.log.Warn("channel shut down", append(c.logAttrs(ch), sluice.LogCode, "ChannelShutdown", "text", text)...)
	c.drop(ch, false)
	ch.system(extension, phoenix.StatusError, text)
	ch.sendClose(ch.joinRef)
}

// fail ends a channel with phx_error: the client joins again by itself.
func (c *conn) fail(ch *channel, reason string) {
	c.srv.log.Warn("channel failed", append(c.logAttrs(ch), "text", reason)...)
	c.drop(ch, true)
	c.sendText(96+len(ch.topic)+len(reason), func(dst []byte) []byte {
		return phoenix.AppendError(dst, c.vsn, ch.joinRef, ch.topic, reason)
	})
}
