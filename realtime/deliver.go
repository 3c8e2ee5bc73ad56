package realtime

import (
	"context"
	"errors"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// subscribed is the change feed's answer to one subscription.
type subscribed struct {
	sub     sluice.LiveSubscription
	notices []*sluice.Refusal
	err     error
}

// end ends a subscription whose channel is gone.
func (s *subscribed) end(ch *channel) {
	switch {
	case s.sub == nil:
	case ch.changes.left:
		s.sub.Close()
	default:
		s.sub.Hold()
	}
}

// prepareChanges gives the entries of postgres_changes their ids.
func (ch *channel) prepareChanges(j phoenix.Join) *sluice.Refusal {
	if len(j.Changes) == 0 {
		return nil
	}
	ids, err := phoenix.BindingIDs(j.Changes)
	if err != nil {
		return sluice.Refuse(sluice.CodeUnknownOnChannel).WithText("%s", err)
	}
	x := &changes{raw: j.Changes, ids: ids, legacy: j.Legacy, places: j.Positions, from: j.From, index: j.Index}
	seen := make(map[int64]bool, len(ids))
	for i, raw := range j.Changes {
		if !seen[ids[i]] {
			seen[ids[i]] = true
			x.bindings = append(x.bindings, sluice.ChangeBinding{ID: ids[i], Params: raw})
		}
	}
	ch.changes = x
	return nil
}

// joinResponse echoes the entries as they were sent, each with its id.
func (ch *channel) joinResponse() []byte {
	if ch.changes == nil {
		return []byte(`{"postgres_changes":[]}`)
	}
	return phoenix.AppendJoinResponse(nil, ch.changes.raw, ch.changes.ids)
}

// subscribe asks the change feed; it blocks until the subscription is live.
func (ch *channel) subscribe(ctx context.Context, claims sluice.Claims, resume *sluice.Resume) subscribed {
	feed := ch.conn.srv.cfg.Feed
	if feed == nil {
		return subscribed{err: sluice.Refuse(sluice.CodeUnableToConnect)}
	}
	sub, notices, err := feed.Subscribe(ctx, sluice.ChangeSubscription{
		Claims: claims, Topic: ch.key.Name, Bindings: ch.changes.bindings, Deliver: ch.deliverChange, Notify: ch.notifyChanges, Resume: resume,
	})
	return subscribed{sub: sub, notices: notices, err: err}
}

// deliverChange queues one change for the channel's socket. The feed calls it,
// from its own goroutines. What comes before the join reply waits for it.
func (ch *channel) deliverChange(e sluice.ChangeEvent) {
	x := ch.changes
	v := ch.conn.vsn
	frame := newFrame(x.appendEvent(newPayload(len(e.Data)+len(ch.topic)+128), v, ch.topic, e), opText)
	m := &ch.conn.srv.metrics
	rate := ch.conn.srv.limits.changes
	rate.add(len(e.IDs))
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case rate.reached():
		m.DroppedChangeRate.Add(1)
		if n := rate.trips.Load(); x.tripped != n && x.live {
			x.tripped = n
			ch.system(extChanges, phoenix.StatusError, ch.conn.srv.limitText(sluice.CodeTooManyChanges))
		}
	default:
		m.Changes.Add(1)
		ch.queueChange(frame)
	}
}

// queueChange queues a change, or a word about them, behind the others: the order
// tells where a gap is, and a pong that it has arrived. Called with mu of changes held.
func (ch *channel) queueChange(frame []byte) {
	x := ch.changes
	switch {
	case x.live:
		ch.conn.send(frame)
		x.sentN++
	case x.failed:
	case len(x.waiting) > 0 && x.bytes+len(frame) > ch.conn.srv.cfg.QueueBytes, len(x.waiting) >= ch.conn.srv.cfg.QueueFrames:
		// The client must not believe that it has seen everything.
		ch.conn.srv.metrics.DroppedChanges.Add(int64(len(x.waiting)) + 1)
		x.failed, x.waiting = true, nil
		ch.conn.slow("too many changes before the join reply")
	default:
		x.waiting = append(x.waiting, frame)
		x.bytes += len(frame)
	}
}

// notifyChanges tells the client what has become of a live subscription; nil is
// that it works again. The feed calls it, as it does deliverChange.
func (ch *channel) notifyChanges(r *sluice.Refusal) {
	status, text := phoenix.StatusOK, textSubscribed
	switch {
	case r == nil:
	case r.Code == sluice.CodeChangesResumed:
		text = r.Text
	case r.Code == sluice.CodeChangesGap: // the remedy is for the application, whatever explain says
		status, text = statusWarning, r.Explain()
	default:
		status, text = phoenix.StatusError, ch.conn.srv.reason(r)
	}
	frame := ch.systemFrame(extChanges, status, text)
	x := ch.changes
	x.mu.Lock()
	defer x.mu.Unlock()
	ch.queueChange(frame)
}

func (x *changes) appendEvent(dst []byte, v phoenix.Version, topic string, e sluice.ChangeEvent) []byte {
	if x.legacy {
		return phoenix.AppendMessage(dst, v, "", "", topic, e.Type, e.Data)
	}
	if x.places {
		return phoenix.AppendChangeAt(dst, v, topic, e.IDs, e.Data, e.At, e.Index)
	}
	return phoenix.AppendChange(dst, v, topic, e.IDs, e.Data)
}

// releaseChanges sends what has waited for the join reply.
func (ch *channel) releaseChanges() {
	x := ch.changes
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.live = true
	for _, frame := range x.waiting {
		ch.conn.send(frame)
	}
	x.sentN += uint64(len(x.waiting))
	x.waiting, x.bytes = nil, 0
	ch.conn.follows.Store(true)
	ch.conn.gotRoom()
}

const textSubscribed = "Subscribed to PostgreSQL"

// statusWarning is our own status of system messages: the subscription is live
// but can never receive anything. Clients hand system messages to listeners and
// act on none; a listener that waits for "ok" or tears down on "error" is
// misled by neither.
const statusWarning = "warning"

// announceChanges tells the client what became of its subscription.
func (ch *channel) announceChanges(notices []*sluice.Refusal, err error) {
	explain := ch.conn.srv.cfg.Explain
	var se *sluice.SubscribeError
	if errors.As(err, &se) {
		text := se.Message
		if explain && se.Refusal != nil && se.Refusal.Remedy != "" {
			text += " | " + string(se.Refusal.Code) + ": " + se.Refusal.Remedy
		}
		ch.system(extChanges, phoenix.StatusError, text)
		return
	}
	ch.system(extChanges, phoenix.StatusOK, textSubscribed)
	if explain {
		for _, n := range notices {
			ch.system(extChanges, statusWarning, n.Explain())
		}
	}
}

// logChanges writes the same to the log, whether explain is on or not.
func (ch *channel) logChanges(notices []*sluice.Refusal, err error) {
	log := ch.conn.srv.log
	var se *sluice.SubscribeError
	if errors.As(err, &se) {
		code := sluice.CodeSubscriptionParams
		if se.Refusal != nil {
			code = se.Refusal.Code
		}
		log.Warn("subscription refused", append(ch.conn.logAttrs(ch), sluice.LogCode, code, "text", se.Message)...)
		return
	}
	for _, n := range notices {
		log.Warn("subscription will receive nothing", append(ch.conn.logAttrs(ch), sluice.LogCode, n.Code, "text", n.Text)...)
	}
}
