package changes

import (
	"context"
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
	conn    int64 // number of the socket, 0 when nobody said
	deliver func(sluice.ChangeEvent)
	notify  func(*sluice.Refusal) // may be nil
	asked   []sluice.ChangeBinding
	bounds  []*binding
	tables  []tableName
	before  []sluice.Seen      // delivered by an earlier one on the same socket
	place   *place             // nil when it cannot be resumed
	stop    context.CancelFunc // ends the sending of what was missed; nil without it

	// start is where it begins to be served by the workers: what committed before is
	// not its, or is sent by replay, which done has got to.
	start atomic.Uint64
	done  atomic.Uint64
	// since is where it begins: what committed before is not its, nor are the changes
	// before first of the transaction that committed there. Fixed by begin.
	since sluice.LSN
	first int
	live  atomic.Bool
	// missed tells that a gap was reported.
	missed atomic.Bool

	// guarded by mu, which is held while delivering
	mu     sync.Mutex
	claims sluice.Claims
	who    identityKey
	sent   int
	seen   []sluice.Seen // the last change of each table
	closed bool
	// What is live waits while the end of what was missed is being sent.
	holding, flooded bool
	waiting          []sluice.ChangeEvent
	told             map[string]time.Time // by table, what tell has said
}

// binding is one entry of a subscription.
type binding struct {
	params
	id   int64
	sub  *subscription
	gone bool // no table of it is published; owned by watchPublication
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
// than the one that the decision was made for. replay tells that the change is one
// that was missed: those go ahead of what is live.
func (s *subscription) send(who identityKey, e sluice.ChangeEvent, replay bool) (sent, moved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return false, false
	case s.who != who:
		return false, true
	}
	switch {
	case replay && s.had(e):
		return false, false
	case replay:
	case e.At < sluice.LSN(s.start.Load()), e.At == s.since && e.Index < s.first: // the first: of a run that began before start was moved on
		return false, false
	case s.holding:
		s.wait(e)
		return true, false
	}
	s.hand(e)
	return true, false
}

// hand delivers. Called with mu held.
func (s *subscription) hand(e sluice.ChangeEvent) {
	s.deliver(e)
	s.sent++
	for i := range s.seen {
		if s.seen[i].Table == e.Table {
			s.seen[i].At, s.seen[i].Index = e.At, e.Index
			return
		}
	}
	if len(s.seen) < maxSeen {
		s.seen = append(s.seen, sluice.Seen{Table: e.Table, At: e.At, Index: e.Index})
	}
}

// maxSeen bounds the tables of which a subscription knows the last change.
const maxSeen = 64

// had reports whether a change was delivered before delivery stopped.
func (s *subscription) had(e sluice.ChangeEvent) bool {
	for _, h := range s.before {
		if h.Table == e.Table {
			return e.At < h.At || e.At == h.At && e.Index <= h.Index
		}
	}
	return false
}

// Seen implements sluice.LiveSubscription.
func (s *subscription) Seen() []sluice.Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// View implements sluice.LiveSubscription.
func (s *subscription) View(ctx context.Context, brief bool) []sluice.BindingView {
	claims, _, _ := s.identity()
	out := make([]sluice.BindingView, 0, len(s.bounds))
	for _, b := range s.bounds {
		v := b.view()
		if !brief {
			v.Tables = s.service.tablesOf(ctx, b, claims)
		}
		out = append(out, v)
	}
	return out
}

// maxHolding bounds the changes that wait until what was missed is sent.
const maxHolding = 4096

// wait keeps a live change back; too many are dropped, and read from the ring.
// Called with mu held.
func (s *subscription) wait(e sluice.ChangeEvent) {
	switch {
	case s.flooded:
	case len(s.waiting) < maxHolding:
		s.waiting = append(s.waiting, e)
	default:
		s.flooded, s.waiting = true, nil
	}
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

// tell says, once a minute for a table, that changes do not come.
func (s *subscription) tell(table string, r *sluice.Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if at, ok := s.told[table]; s.closed || s.notify == nil || ok && now.Sub(at) < time.Minute {
		return
	}
	if s.told == nil || len(s.told) >= maxTold {
		s.told = map[string]time.Time{}
	}
	s.told[table] = now
	s.notify(r)
}

// maxTold bounds the tables of which a subscription remembers what it was told.
const maxTold = 64

// report tells what holds from now on; nil that nothing is wrong any more.
func (s *subscription) report(r *sluice.Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.notify != nil {
		s.notify(r)
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
	// changed counts, by name, who came, went or became somebody else.
	changed map[tableName]uint64
}

func newIndex() *index {
	return &index{byName: map[tableName][]*binding{}, changed: map[tableName]uint64{}}
}

// version changes when those who listen to a table do, or their claims.
func (x *index) version(schema, table string) (v uint64) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, k := range names(schema, table) {
		v += x.changed[k]
	}
	return v
}

// touch notes that a subscription is somebody else now.
func (x *index) touch(s *subscription) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range s.bounds {
		x.changed[tableName{b.schema, b.table}]++
	}
}

func (x *index) add(s *subscription) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range s.bounds {
		k := tableName{b.schema, b.table}
		x.byName[k] = append(x.byName[k], b)
		x.changed[k]++
	}
}

func (x *index) remove(s *subscription) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range s.bounds {
		k := tableName{b.schema, b.table}
		list := x.byName[k]
		x.changed[k]++
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

// all returns every binding, those of one subscription in their order.
func (x *index) all() []*binding {
	x.mu.RLock()
	defer x.mu.RUnlock()
	seen := map[*subscription]bool{}
	var out []*binding
	for _, list := range x.byName {
		for _, b := range list {
			if !seen[b.sub] {
				seen[b.sub] = true
				out = append(out, b.sub.bounds...)
			}
		}
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
