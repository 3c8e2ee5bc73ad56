package realtime

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"reflect"
	"sync/atomic"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// meta is what one channel has tracked.
type meta struct {
	ch      *channel
	key     string
	ref     string
	payload []byte // the client's object
}

// refMaker makes phx_refs: 16 base64url characters, unique among all nodes.
type refMaker struct {
	node [4]byte
	n    atomic.Uint64
}

func newRefMaker() *refMaker {
	m := &refMaker{}
	_, _ = rand.Read(m.node[:]) // never fails
	return m
}

func (m *refMaker) next() string {
	var b [12]byte
	copy(b[:4], m.node[:])
	binary.BigEndian.PutUint64(b[4:], m.n.Add(1))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// newUUID returns a random UUID, the key of a presence whose client chose none.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	const hex = "0123456789abcdef"
	out := make([]byte, 0, 36)
	for i, x := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			out = append(out, '-')
		}
		out = append(out, hex[x>>4], hex[x&15])
	}
	return string(out)
}

// appendMeta appends a meta: the client's members beside phx_ref, which is ours.
func (m *meta) appendMeta(dst []byte, previous string) []byte {
	dst = append(dst, `{"phx_ref":"`...)
	dst = append(dst, m.ref...)
	dst = append(dst, '"')
	if previous != "" {
		dst = append(dst, `,"phx_ref_prev":"`...)
		dst = append(dst, previous...)
		dst = append(dst, '"')
	}
	dst = append(dst, ',')
	dst, any := phoenix.AppendMembers(dst, m.payload, "phx_ref", "phx_ref_prev")
	if !any {
		dst = dst[:len(dst)-1]
	}
	return append(dst, '}')
}

func (m *meta) appendEntry(dst []byte, previous string) []byte {
	dst = phoenix.AppendString(dst, m.key)
	dst = append(dst, `:{"metas":[`...)
	dst = m.appendMeta(dst, previous)
	return append(dst, "]}"...)
}

// appendState appends the payload of presence_state.
func (t *topic) appendState(dst []byte) []byte {
	dst = append(dst, '{')
	for key, metas := range t.presence {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = phoenix.AppendString(dst, key)
		dst = append(dst, `:{"metas":[`...)
		for i, m := range metas {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = m.appendMeta(dst, "")
		}
		dst = append(dst, "]}"...)
	}
	return append(dst, '}')
}

// put makes m the meta of its channel. It returns the one that it replaces.
func (t *topic) put(m *meta) (old *meta) {
	old = t.remove(m.ch)
	if t.presence == nil {
		t.presence = map[string][]*meta{}
	}
	t.presence[m.key] = append(t.presence[m.key], m)
	m.ch.tracked = m
	return old
}

// remove takes the meta of ch away and returns it, or nil.
func (t *topic) remove(ch *channel) *meta {
	m := ch.tracked
	if m == nil {
		return nil
	}
	ch.tracked = nil
	metas := t.presence[m.key]
	for i, other := range metas {
		if other == m {
			metas = append(metas[:i:i], metas[i+1:]...)
			break
		}
	}
	if len(metas) == 0 {
		delete(t.presence, m.key)
	} else {
		t.presence[m.key] = metas
	}
	return m
}

// sendDiff queues one presence_diff for all subscribers of t, which is locked.
func (h *Hub) sendDiff(t *topic, name string, joined, left *meta, previous string) {
	if len(t.subs) == 0 {
		return
	}
	payload := append([]byte(nil), `{"joins":{`...)
	if joined != nil {
		payload = joined.appendEntry(payload, previous)
	}
	payload = append(payload, `},"leaves":{`...)
	if left != nil {
		payload = left.appendEntry(payload, "")
	}
	payload = append(payload, "}}"...)
	f := framesFor(func(dst []byte, v phoenix.Version) ([]byte, bool, error) {
		return phoenix.AppendMessage(dst, v, "", "", name, phoenix.EventPresenceDiff, payload), false, nil
	}, len(payload)+len(name)+64)
	sent := 0
	for _, ch := range t.subs {
		if !ch.muted && !ch.blind && !ch.held {
			ch.conn.send(f.to(ch.conn))
			sent++
		}
	}
	h.limits.presence.add(sent)
}

// track makes payload the presence of ch on every subscriber's list. The same
// payload again changes nothing.
func (h *Hub) track(ch *channel, payload []byte) {
	h.withTopic(ch, func(t *topic) {
		if ch.tracked != nil && sameJSON(ch.tracked.payload, payload) {
			return
		}
		m := &meta{ch: ch, key: ch.presenceKey, ref: h.refs.next(), payload: bytes.Clone(payload)}
		old := t.put(m)
		previous := ""
		if old != nil {
			previous = old.ref
		}
		h.limits.presence.add(1)
		h.sendDiff(t, ch.topic, m, old, previous)
	})
}

// untrack takes ch off the list.
func (h *Hub) untrack(ch *channel) {
	h.withTopic(ch, func(t *topic) {
		if old := t.remove(ch); old != nil {
			h.sendDiff(t, ch.topic, nil, old, "")
		}
	})
}

// mute stops everything that goes to ch, its own presence included, and calls
// last behind it. It returns what was tracked.
func (h *Hub) mute(ch *channel, last func()) (tracked []byte) {
	h.withTopic(ch, func(t *topic) {
		ch.muted = true
		if old := t.remove(ch); old != nil {
			tracked = old.payload
			h.sendDiff(t, ch.topic, nil, old, "")
		}
		last()
	})
	return tracked
}

// unmute lets deliveries reach ch again, behind first.
func (h *Hub) unmute(ch *channel, first func(t *topic)) {
	h.withTopic(ch, func(t *topic) {
		ch.muted = false
		first(t)
	})
}

// sendState sends presence_state to ch if it may see it. t is locked.
func (ch *channel) sendState(t *topic) {
	if ch.blind {
		return
	}
	ch.conn.srv.limits.presence.add(1)
	ch.conn.sendText(96+len(ch.topic), func(dst []byte) []byte {
		return phoenix.AppendMessage(dst, ch.conn.vsn, ch.joinRef, "", ch.topic, phoenix.EventPresenceState, t.appendState(nil))
	})
}

func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	return reflect.DeepEqual(x, y)
}

// textTrackSize is the text of the shutdown for a payload that is too large.
const textTrackSize = "Track message size exceeded"

// presencePush acts on a presence event: track, untrack, or neither.
func (ch *channel) presencePush(m *phoenix.Message) {
	c := ch.conn
	p := phoenix.ParsePresence(m.Payload)
	if !p.HasEvent {
		ch.reply(m.Ref, phoenix.StatusOK, emptyResponse)
		return
	}
	if !ch.countPresence() {
		c.srv.log.Warn("presence limit reached", append(c.logAttrs(ch), sluice.LogCode, sluice.CodePresenceCalls)...)
		c.srv.metrics.ClosedPresence.Add(1)
		c.shutdown(ch, extSystem, c.srv.limitText(sluice.CodePresenceCalls))
		return
	}
	switch p.Event {
	case "track":
		ch.track(m, p.Payload)
	case "untrack":
		ch.retained = nil
		c.srv.hub.untrack(ch)
		ch.reply(m.Ref, phoenix.StatusOK, emptyResponse)
	default:
		c.srv.log.Debug("unknown presence event", append(c.logAttrs(ch), sluice.LogCode, "UnknownPresenceEvent")...)
		ch.reply(m.Ref, phoenix.StatusError, emptyResponse)
	}
}

func (ch *channel) track(m *phoenix.Message, payload json.RawMessage) {
	c := ch.conn
	if payload == nil {
		payload = emptyResponse
	}
	switch {
	case c.srv.limits.presence.exceeded():
		c.srv.metrics.ClosedPresence.Add(1)
		c.shutdown(ch, extSystem, c.srv.limitText(sluice.CodeTooManyPresence))
	case !phoenix.IsObject(payload):
		c.srv.log.Debug("presence payload is no object", append(c.logAttrs(ch), sluice.LogCode, "InvalidPresencePayload")...)
		ch.reply(m.Ref, phoenix.StatusError, []byte(`{"reason":"Presence track payload must be a map"}`))
	case len(payload) > c.srv.cfg.maxPayload():
		c.shutdown(ch, extSystem, textTrackSize)
	case ch.expired:
		c.srv.metrics.DroppedMuted.Add(1)
		ch.reply(m.Ref, phoenix.StatusError, emptyResponse)
	case ch.key.Private && ch.rights.write[presences] != granted:
		ch.presenceOn = true
		ch.withheldTrack(m)
	default:
		ch.presenceOn = true
		if ch.presenceKey == "" {
			ch.presenceKey = newUUID()
		}
		c.srv.hub.track(ch, payload)
		ch.reply(m.Ref, phoenix.StatusOK, emptyResponse)
	}
}

// withheldTrack asks whether the channel may track, or says no.
func (ch *channel) withheldTrack(m *phoenix.Message) {
	refuse := func(m *phoenix.Message) { ch.reply(m.Ref, phoenix.StatusError, emptyResponse) }
	if ch.rights.write[presences] == denied {
		refuse(m)
		return
	}
	ch.askWrite(m, presences, func(m *phoenix.Message) {
		ch.track(m, phoenix.ParsePresence(m.Payload).Payload)
	}, refuse)
}

// countPresence counts one push in the channel's fixed window and reports
// whether it is within the limit.
func (ch *channel) countPresence() bool {
	now := ch.conn.srv.now()
	if now >= ch.windowEnd {
		ch.windowEnd = now + int64(ch.conn.srv.cfg.PresenceWindow)
		ch.calls = 0
	}
	ch.calls++
	return float64(ch.calls) <= ch.conn.srv.cfg.MaxPresenceCalls.or(5)
}
