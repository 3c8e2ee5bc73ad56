package realtime

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// Hub knows which channels of this node are on which topic.
type Hub struct {
	// fixed after newHub
	bus     Bus
	metrics *Metrics
	limits  *limits
	refs    *refMaker
	seed    maphash.Seed
	shards  [hubShards]shard
}

const hubShards = 64

type shard struct {
	// mu guards the map, and with topic.mu that a topic in the map is the only
	// one of its name: subscribe and unsubscribe hold both.
	mu     sync.RWMutex
	topics map[sluice.Topic]*topic
}

// topic is one namespace with at least one subscriber.
type topic struct {
	// mu puts everything that reaches the subscribers of this topic into one
	// order: a broadcast is before or behind a join, a leave, a mute or a
	// presence change for all of them. Deliver reads, the others write. It is
	// held while frames are queued, which does not block.
	mu       sync.RWMutex
	subs     []*channel
	presence map[string][]*meta // by presence key; nil until someone tracks
}

func newHub(bus Bus, m *Metrics, l *limits) *Hub {
	h := &Hub{bus: bus, metrics: m, limits: l, refs: newRefMaker(), seed: maphash.MakeSeed()}
	for i := range h.shards {
		h.shards[i].topics = map[sluice.Topic]*topic{}
	}
	return h
}

func (h *Hub) shard(key sluice.Topic) *shard {
	return &h.shards[maphash.Comparable(h.seed, key)%hubShards]
}

// subscribe adds ch to its topic and calls first before anything else can reach
// ch: the join reply and the presence state, which is true at that moment.
func (h *Hub) subscribe(ch *channel, first func(t *topic)) {
	h.add(ch, func(t *topic) {
		ch.held = false
		first(t)
	})
}

// hold adds ch to its topic ahead of subscribe: broadcasts wait in its replay,
// presence passes it by.
func (h *Hub) hold(ch *channel) {
	h.add(ch, func(*topic) { ch.held = true })
}

// add puts ch on its topic, unless it is there, and calls fn with that locked.
func (h *Hub) add(ch *channel, fn func(t *topic)) {
	s := h.shard(ch.key)
	s.mu.Lock()
	t := s.topics[ch.key]
	if t == nil {
		t = &topic{}
		s.topics[ch.key] = t
	}
	t.mu.Lock()
	s.mu.Unlock()
	defer t.mu.Unlock()
	if ch.index < 0 {
		ch.index = len(t.subs)
		t.subs = append(t.subs, ch)
	}
	fn(t)
}

// unsubscribe takes ch off its topic; its presence leaves. Nothing reaches ch
// after it has returned.
func (h *Hub) unsubscribe(ch *channel) {
	s := h.shard(ch.key)
	s.mu.Lock()
	t := s.topics[ch.key]
	if t == nil {
		s.mu.Unlock()
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if ch.index < 0 {
		s.mu.Unlock()
		return
	}
	last := len(t.subs) - 1
	t.subs[ch.index] = t.subs[last]
	t.subs[ch.index].index = ch.index
	t.subs[last] = nil
	t.subs = t.subs[:last]
	ch.index = -1
	if last == 0 {
		delete(s.topics, ch.key)
	}
	s.mu.Unlock()
	if gone := t.remove(ch); gone != nil {
		h.sendDiff(t, ch.topic, nil, gone, "")
	}
}

// withTopic runs fn with the topic of ch, which must be subscribed, locked.
func (h *Hub) withTopic(ch *channel, fn func(t *topic)) {
	s := h.shard(ch.key)
	s.mu.RLock()
	t := s.topics[ch.key]
	s.mu.RUnlock()
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if ch.index < 0 {
		return
	}
	fn(t)
}

// Publish sends b to every subscriber of its topic on every node. When it has
// returned, this node's have it in their queues.
func (h *Hub) Publish(ctx context.Context, b *sluice.Broadcast) error {
	h.metrics.Broadcasts.Add(1)
	return h.bus.PublishBroadcast(ctx, b)
}

// Deliver queues b for this node's subscribers. It is encoded at most once per
// protocol version, and every socket shares the bytes. While too much is
// delivered, each channel that got it is shut down.
func (h *Hub) Deliver(b *sluice.Broadcast) {
	s := h.shard(b.Topic)
	s.mu.RLock()
	t := s.topics[b.Topic]
	s.mu.RUnlock()
	if t == nil {
		return
	}
	f := framesFor(func(dst []byte, v phoenix.Version) ([]byte, bool, error) {
		return phoenix.AppendBroadcast(dst, v, phoenix.TopicPrefix+b.Topic.Name, b)
	}, len(b.Topic.Name)+len(b.Event)+len(b.Payload)+len(b.Meta)+96)
	over, delivered := h.limits.events.reached(), 0
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, ch := range t.subs {
		switch {
		case ch.id == b.Sender, ch.deaf, ch.condemned.Load():
		case ch.muted:
			h.metrics.DroppedMuted.Add(1)
		default:
			if frame := f.to(ch.conn); frame != nil {
				ch.deliver(b.ID, frame)
				delivered++
				if over {
					h.limits.condemn(ch)
				}
			} else {
				h.metrics.DroppedUnencodable.Add(1)
			}
		}
	}
	h.limits.events.add(delivered)
	h.metrics.Delivered.Add(int64(delivered))
}

// frames are one message's frames by protocol version, made when first needed.
type frames struct {
	encode func(dst []byte, v phoenix.Version) ([]byte, bool, error)
	size   int
	made   [3]bool
	frame  [3][]byte
	packed [3][]byte // the same, compressed
}

// to returns the frame that c gets, or nil when the message has no form in its
// version.
func (f *frames) to(c *conn) []byte {
	frame := f.of(c.vsn)
	if frame == nil || !c.in.deflate {
		return frame
	}
	if f.packed[c.vsn] == nil {
		f.packed[c.vsn] = deflated(frame)
	}
	return f.packed[c.vsn]
}

func framesFor(encode func(dst []byte, v phoenix.Version) ([]byte, bool, error), size int) *frames {
	return &frames{encode: encode, size: size}
}

// of returns the frame for version v, or nil when the message has no form in it.
func (f *frames) of(v phoenix.Version) []byte {
	if !f.made[v] {
		f.made[v] = true
		buf, binary, err := f.encode(newPayload(f.size), v)
		if err == nil {
			op := ws.OpText
			if binary {
				op = ws.OpBinary
			}
			f.frame[v] = newFrame(buf, op)
		}
	}
	return f.frame[v]
}
