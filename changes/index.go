package changes

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-dev/sluice"
)

// subscription is one channel's.
type subscription struct {
	// fixed after Subscribe
	service *Service
	topic   string
	deliver func(sluice.ChangeEvent)
	notify  func(*sluice.Refusal) // may be nil
	asked   []sluice.ChangeBinding
	bounds  []*binding
	tables  []tableName
	place   *place             // nil when it cannot be resumed
	stop    context.CancelFunc // ends the sending of what was missed; nil without it

	// start is where it begins: changes that committed before it are not its. While
	// what was missed is being sent, done is up to where, and start is read by
	// nobody else; both are set when it goes live.
	start sluice.LSN
	done  atomic.Uint64
	live  atomic.Bool

	// guarded by mu, which is held while delivering
	mu     sync.Mutex
	claims sluice.Claims
	who    identityKey
	sent   int
	closed bool
}

// binding is one entry of a subscription.
type binding struct {
	params
	id  int64
	sub *subscription
}

// identityKey groups subscribers whom no policy can tell apart: the same role
// and the same claims, byte for byte.
type identityKey struct{ role, claims string }

func keyOf(c sluice.Claims) identityKey { return identityKey{c.Role, string(c.JSON)} }

// identity returns who the subscription acts as, and whether it is open.
func (s *subscription) identity() (sluice.Claims, identityKey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claims, s.who, !s.closed
}

// send delivers, unless the subscription was closed, or moved to another identity
// than the one that the decision was made for.
func (s *subscription) send(who identityKey, e sluice.ChangeEvent) (sent, moved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return false, false
	case s.who != who:
		return false, true
	}
	s.deliver(e)
	s.sent++
	return true, false
}

// Position implements sluice.LiveSubscription.
func (s *subscription) Position() sluice.LSN {
	live, done := s.live.Load(), sluice.LSN(s.done.Load())
	if !live {
		return done
	}
	return max(done, s.service.settled())
}

// Confirm implements sluice.LiveSubscription.
func (s *subscription) Confirm(at sluice.LSN, ref uint64) {
	if s.place != nil {
		s.service.places.confirm(s.place, at, ref, time.Now())
	}
}

// Hold implements sluice.LiveSubscription.
func (s *subscription) Hold() { s.end(s.service.places.hold) }

// Close implements sluice.LiveSubscription.
func (s *subscription) Close() { s.end(func(pl *place, _ time.Time) { s.service.places.close(pl) }) }

func (s *subscription) end(leave func(*place, time.Time)) {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return
	}
	if s.stop != nil {
		s.stop()
	}
	s.service.index.remove(s) // of one that was not live yet nothing is there
	now := time.Now()
	if s.place != nil {
		leave(s.place, now)
	}
	s.service.ring.release(s.tables, now)
	s.service.metrics.Subscriptions.Add(-1)
}

type tableName struct{ schema, table string }

// index finds the bindings for a table: by both names, by the schema, and those
// for everything.
type index struct {
	mu     sync.RWMutex
	byName map[tableName][]*binding
}

func newIndex() *index { return &index{byName: map[tableName][]*binding{}} }

func (x *index) add(s *subscription) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range s.bounds {
		k := tableName{b.schema, b.table}
		x.byName[k] = append(x.byName[k], b)
	}
}

func (x *index) remove(s *subscription) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range s.bounds {
		k := tableName{b.schema, b.table}
		list := x.byName[k]
		for i, other := range list {
			if other == b {
				list[i] = list[len(list)-1]
				list[len(list)-1] = nil
				list = list[:len(list)-1]
				break
			}
		}
		if len(list) == 0 {
			delete(x.byName, k)
		} else {
			x.byName[k] = list
		}
	}
}

// names are the keys under which bindings for a table may stand.
func names(schema, table string) [4]tableName {
	return [4]tableName{{schema, table}, {schema, "*"}, {"*", table}, {"*", "*"}}
}

// all returns the subscriptions.
func (x *index) all() []*subscription {
	x.mu.RLock()
	defer x.mu.RUnlock()
	seen := map[*subscription]bool{}
	for _, list := range x.byName {
		for _, b := range list {
			seen[b.sub] = true
		}
	}
	return slices.Collect(maps.Keys(seen))
}

// find returns the bindings for a table.
func (x *index) find(schema, table string) []*binding {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []*binding
	for _, k := range names(schema, table) {
		out = append(out, x.byName[k]...)
	}
	return out
}

// limiter lets one line a minute through for each thing that goes wrong.
type limiter struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newLimiter() *limiter { return &limiter{last: map[string]time.Time{}} }

func (l *limiter) allow(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if t, ok := l.last[key]; ok && now.Sub(t) < time.Minute {
		return false
	}
	if len(l.last) > 1000 {
		clear(l.last)
	}
	l.last[key] = now
	return true
}
