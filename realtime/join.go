package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// join opens a channel: checks first, then, when rows have to be read for a replay
// or the change feed has to be asked, a slow step during which the channel's
// messages wait, then the reply.
// old is the channel that the socket has on the topic already; it ends before
// the new one begins, even if that fails, and its phx_close follows the reply.
func (c *conn) join(old *channel, m *phoenix.Message) {
	c.srv.metrics.Joins.Add(1)
	sub, ok := strings.CutPrefix(m.Topic, phoenix.TopicPrefix)
	if !ok {
		c.refuse("", m.Ref, m.Topic, reasonUnmatched)
		return
	}
	var replaced *phoenix.Ref
	if old != nil {
		replaced = &old.joinRef
		c.drop(old)
	}
	joinRef := m.JoinRef
	if joinRef == "" {
		joinRef = m.Ref
	}
	ch := &channel{conn: c, id: c.srv.nextChannel.Add(1), topic: m.Topic, key: sluice.Topic{Name: sub}, joinRef: joinRef, index: -1}
	if refusal := ch.prepare(m); refusal != nil {
		ch.refuseJoin(m.Ref, refusal, replaced)
		return
	}
	c.channels = append(c.channels, ch)
	if ch.changes == nil && ch.replay == nil {
		ch.accept(m.Ref, replaced, nil)
		return
	}
	var live subscribed
	var refusal *sluice.Refusal
	claims, ref := ch.claims, m.Ref
	ch.start(func(ctx context.Context) {
		if ch.replay != nil {
			refusal = ch.load(ctx)
		}
		if ch.changes != nil && refusal == nil {
			live = ch.subscribe(ctx, claims)
		}
	}, func() {
		var se *sluice.SubscribeError
		if live.err != nil && !errors.As(live.err, &se) {
			refusal = asRefusal(live.err)
		}
		switch {
		case refusal != nil:
			c.drop(ch)
			ch.refuseJoin(ref, refusal, replaced)
		case ch.changes == nil:
			ch.accept(ref, replaced, nil)
		default:
			ch.changes.sub = live.sub
			ch.accept(ref, replaced, &live)
		}
	}, func() {
		live.close()
		c.srv.hub.unsubscribe(ch)
	})
}

// prepare makes the checks of a join in their order and reads its payload.
func (ch *channel) prepare(m *phoenix.Message) *sluice.Refusal {
	c := ch.conn
	switch {
	case c.refusal != nil:
		return c.refusal
	case ch.key.Name == "":
		return sluice.Refuse(sluice.CodeTopicNameRequired)
	case len(ch.topic) > maxTopic:
		return sluice.Refuse(sluice.CodeTopicNameRequired).WithText("The topic name is longer than %d bytes", maxTopic)
	case c.srv.stopping.Load():
		return sluice.Refuse(sluice.CodeRestarting)
	case len(c.channels) >= c.srv.cfg.MaxChannels:
		return sluice.Refuse(sluice.CodeTooManyChannels)
	case len(m.Payload) > c.srv.cfg.MaxJoin:
		return sluice.Refuse(sluice.CodeUnknownOnChannel).WithText("the join payload is larger than %d bytes", c.srv.cfg.MaxJoin)
	}
	j, err := phoenix.ParseJoin(m.Payload, c.srv.cfg.MaxChanges)
	if err != nil {
		return sluice.Refuse(sluice.CodeUnknownOnChannel).WithText("%s", err)
	}
	if len(j.Problems) > 0 {
		c.srv.log.Warn("join payload has invalid parts", append(c.logAttrs(ch), sluice.LogCode, "InvalidJoinPayload", "problems", j.Problems, "client", j.Version)...)
	}
	ch.key.Private = j.Private
	v := verified{claims: c.key}
	if j.HasToken {
		var refusal *sluice.Refusal
		if v, refusal = c.verify(j.Token); refusal != nil {
			return refusal
		}
	} else if hasExpired(c.key) {
		return sluice.Refuse(sluice.CodeInvalidJWTToken).WithText("%s", expiredText(c.key))
	}
	ch.setClaims(v)
	if refusal := ch.mayRead(); refusal != nil {
		return refusal
	}
	ch.prepareReplay(j)
	ch.ack, ch.self, ch.wantsReady = j.Ack, j.Self, j.ReplicationReady
	ch.presenceKey, ch.presenceOn = j.PresenceKey, j.PresenceEnabled
	if j.Legacy {
		j.Changes = []json.RawMessage{phoenix.LegacyChanges(ch.key.Name)}
	}
	return ch.prepareChanges(j)
}

// maxTopic bounds a topic in bytes.
const maxTopic = 4096

// accept subscribes the channel to its topic and says so. The reply comes first,
// then what is replayed, the state of the change feed and of presence, and only
// then anything that was sent meanwhile.
func (ch *channel) accept(ref phoenix.Ref, replaced *phoenix.Ref, live *subscribed) {
	c := ch.conn
	ch.joined = true
	c.srv.metrics.Channels.Add(1)
	ready := ch.wantsReady && c.srv.streaming()
	c.srv.hub.subscribe(ch, func(t *topic) {
		ch.reply(ref, phoenix.StatusOK, ch.joinResponse())
		if replaced != nil {
			ch.sendClose(*replaced)
		}
		ch.sendReplay()
		if live != nil {
			ch.announceChanges(live.notices, live.err)
		}
		if ready {
			ch.system(extSystem, phoenix.StatusOK, textReady)
		}
		if ch.presenceOn {
			ch.sendState(t)
		}
	})
	if live != nil {
		ch.releaseChanges()
		ch.logChanges(live.notices, live.err)
	}
	if ch.wantsReady && !ready {
		ch.awaitReady()
	}
	c.rearm()
}

// refuseJoin answers a join that failed. The client tries again by itself.
func (ch *channel) refuseJoin(ref phoenix.Ref, r *sluice.Refusal, replaced *phoenix.Ref) {
	c := ch.conn
	c.srv.metrics.JoinsFailed.Add(1)
	c.srv.log.Info("join refused", append(c.logAttrs(ch), sluice.LogCode, r.Code, "text", r.Text, sluice.LogError, r.Cause)...)
	c.refuse(ch.joinRef, ref, ch.topic, c.srv.reason(r))
	if replaced != nil {
		ch.sendClose(*replaced)
	}
}
