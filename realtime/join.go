package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/gobwas/ws"

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
		c.drop(old, true)
	}
	joinRef := m.JoinRef
	if joinRef == "" {
		joinRef = m.Ref
	}
	ch := &channel{conn: c, id: c.srv.nextChannel.Add(1), topic: m.Topic, key: sluice.Topic{Name: sub}, joinRef: joinRef, index: -1}
	if refusal := ch.prepare(m); refusal != nil {
		ch.refuseJoin(m.Ref, refusal, replaced)
		if refusal.Code == sluice.CodeTooManyJoins {
			c.srv.metrics.ClosedJoins.Add(1)
			c.close(ws.StatusGoingAway, "")
		}
		return
	}
	c.channels = append(c.channels, ch)
	c.countChannels()
	if len(c.channels) == c.srv.cfg.MaxChannels {
		c.srv.log.Warn("last channel of the socket taken", append(c.logAttrs(ch), sluice.LogCode, sluice.CodeTooManyChannels)...)
	}
	if ch.changes == nil && ch.replay == nil && !ch.key.Private {
		ch.accept(m.Ref, replaced, nil)
		return
	}
	var refusal *sluice.Refusal
	var live subscribed
	claims, ref, read, resume := ch.claims, m.Ref, ch.readProbe(), ch.resumption()
	ch.start(func(ctx context.Context) {
		if ch.key.Private {
			refusal = ch.authorize(ctx, read)
		}
		if refusal == nil && ch.replay != nil {
			refusal = ch.load(ctx)
		}
		if refusal == nil && ch.changes != nil {
			live = ch.subscribe(ctx, claims, resume)
		}
	}, func() {
		if ch.changes != nil {
			ch.changes.sub = live.sub
		}
		var se *sluice.SubscribeError
		switch {
		case refusal != nil:
		case live.err != nil && !errors.As(live.err, &se):
			refusal = asRefusal(live.err)
		default:
			refusal = c.sendBack(ch, live.notices)
		}
		switch {
		case refusal != nil:
			c.drop(ch, true)
			ch.refuseJoin(ref, refusal, replaced)
		case ch.changes == nil:
			ch.accept(ref, replaced, nil)
		default:
			ch.accept(ref, replaced, &live)
		}
	}, func() {
		live.end(ch)
		c.srv.hub.unsubscribe(ch)
	})
}

// authorize asks what the channel may read, and takes the answer over before the
// channel is on its topic. A replay needs the right to read broadcasts.
func (ch *channel) authorize(ctx context.Context, read *probe) *sluice.Refusal {
	a := ch.conn.srv.policies.ask(ctx, read)
	if refusal := ch.refusal(a); refusal != nil {
		if a.err != nil {
			ch.logCheck("UnableToSetPolicies", a.err)
		}
		return refusal
	}
	ch.setRead(read, a)
	if ch.replay != nil && ch.deaf {
		return ch.noRead()
	}
	return nil
}

// sendBack refuses a join that would be silent for want of a token, once for a
// topic. A stock client that subscribes in the tick in which it was made joins
// before it has read its session, and never sends the token afterwards: the
// channel would say SUBSCRIBED and receive nothing. Refused, it joins again
// after a second, with the token by then (docs/decisions/0005). Who comes
// without one again has no session; that join is accepted, with its warning.
func (c *conn) sendBack(ch *channel, notices []*sluice.Refusal) *sluice.Refusal {
	i := slices.Index(c.sentBack, ch.topic)
	if i >= 0 {
		c.sentBack = slices.Delete(c.sentBack, i, i+1)
		return nil
	}
	// What else keeps changes away (no policy at all) a token does not mend.
	i = slices.IndexFunc(notices, func(n *sluice.Refusal) bool {
		return n.Code == sluice.CodeNoPolicyForRole || n.Code == sluice.CodeNoSelectGrant
	})
	if !ch.undecided || i < 0 || len(c.sentBack) >= c.srv.cfg.MaxChannels {
		return nil
	}
	c.sentBack = append(c.sentBack, ch.topic)
	return sluice.Refuse(sluice.CodeJoinedWithoutToken).WithCause(notices[i])
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
	case !c.counted && c.srv.limits.fullHouse():
		return sluice.Refuse(sluice.CodeTooManyConns)
	case c.srv.limits.joins.reached():
		return sluice.Refuse(sluice.CodeTooManyJoins)
	}
	c.srv.limits.joins.add(1) // whatever the checks below say
	switch {
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
	if c.srv.cfg.PrivateOnly && !j.Private {
		return sluice.Refuse(sluice.CodePrivateOnly)
	}
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
	ch.undecided = j.Undecided
	ch.prepareReplay(j)
	ch.ack, ch.self, ch.wantsReady = j.Ack, j.Self, j.ReplicationReady
	ch.presenceKey, ch.presenceOn = j.PresenceKey, j.PresenceEnabled || c.srv.cfg.PresenceEnabled
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
	if !c.counted {
		c.counted = true
		c.srv.limits.users.Add(1)
	}
	full := ch.presenceOn && c.srv.limits.presence.exceeded()
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
		if ch.presenceOn && !full {
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
	if full {
		c.srv.metrics.ClosedPresence.Add(1)
		c.shutdown(ch, extSystem, c.srv.limitText(sluice.CodeTooManyPresence))
	}
}

// refuseJoin answers a join that failed. The client tries again by itself. The
// limits on joins and channels have a log line of their own when they are
// reached; a flood of refusals is only counted.
func (ch *channel) refuseJoin(ref phoenix.Ref, r *sluice.Refusal, replaced *phoenix.Ref) {
	c := ch.conn
	c.srv.metrics.JoinsFailed.Add(1)
	c.countChannels()
	switch r.Code {
	case sluice.CodeTooManyJoins, sluice.CodeTooManyChannels: // logged once, where the limit was reached
	case sluice.CodeJoinedWithoutToken: // a step of a good join
		c.srv.log.Info("join sent back", append(c.logAttrs(ch), sluice.LogCode, r.Code, sluice.LogError, r.Cause)...)
	default:
		c.srv.log.Warn("join refused", append(c.logAttrs(ch), sluice.LogCode, r.Code, "text", r.Text, sluice.LogError, r.Cause)...)
	}
	c.refuse(ch.joinRef, ref, ch.topic, c.srv.reason(r))
	if replaced != nil {
		ch.sendClose(*replaced)
	}
}
