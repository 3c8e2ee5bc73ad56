package realtime

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-dev/sluice"
)

// Limit bounds a number or a rate. The zero value stands for the original's
// default, which each field names.
type Limit int

const (
	// Unlimited switches a limit off.
	Unlimited Limit = -1
	// Nothing allows nothing: what the original does with a limit of 0.
	Nothing Limit = -2
)

// or returns the bound, or d for the zero value; +Inf when there is none.
func (l Limit) or(d int) float64 {
	switch l {
	case 0:
		return float64(d)
	case Unlimited:
		return math.Inf(1)
	case Nothing:
		return 0
	}
	return float64(l)
}

// limits are the counters of a whole server. Each node counts for itself, as
// the original's do.
type limits struct {
	maxUsers float64
	users    atomic.Int64 // sockets that have joined a channel

	joins    *rate // joins that were let through
	events   *rate // broadcasts sent, broadcasts delivered, unknown events
	changes  *rate // deliveries of changes, one for each binding
	presence *rate // states sent, effective tracks, diffs delivered
	requests *rate // HTTP requests to routes of the project

	// condemned are the channels that received something while events had
	// reached its limit. Run shuts them down: whoever delivers holds locks.
	mu        sync.Mutex
	condemned []*channel
	wake      chan struct{} // tells Run that there are some; holds one
}

// Windows of the original's counters: a minute, in ticks of 5 s, and of 1 s for
// HTTP requests.
const (
	slowTick  = 5 * time.Second
	slowTicks = 12
	fastTick  = time.Second
	fastTicks = 60
)

func newLimits(cfg *Config) *limits {
	events := cfg.MaxEventsPerSecond.or(100)
	return &limits{
		maxUsers: cfg.MaxUsers.or(200),
		joins:    newRate(cfg.MaxJoinsPerSecond.or(100), slowTicks, slowTick),
		events:   newRate(events, slowTicks, slowTick),
		changes:  newRate(events, slowTicks, slowTick),
		presence: newRate(cfg.MaxPresencePerSecond.or(1000), slowTicks, slowTick),
		requests: newRate(events, fastTicks, fastTick),
		wake:     make(chan struct{}, 1),
	}
}

// fullHouse reports whether no further socket may join its first channel.
func (l *limits) fullHouse() bool { return float64(l.users.Load()) >= l.maxUsers }

// handshake says why no socket is taken now, or nil.
func (l *limits) handshake() *sluice.Refusal {
	switch {
	case l.fullHouse():
		return sluice.Refuse(sluice.CodeTooManyConns)
	case l.joins.reached():
		return sluice.Refuse(sluice.CodeTooManyHandshakes)
	}
	return nil
}

// condemn gives ch over to Run. It may be called with any lock held.
func (l *limits) condemn(ch *channel) {
	if !ch.condemned.CompareAndSwap(false, true) {
		return
	}
	l.mu.Lock()
	l.condemned = append(l.condemned, ch)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// takeCondemned returns the channels that are to be shut down.
func (l *limits) takeCondemned() []*channel {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.condemned
	l.condemned = nil
	return out
}

// rate is an average per second over the last minute, taken at ticks as the
// original's RateCounter does: the sum of the ticks divided by their number so
// far. The first tick is the moment at which something is counted for the first
// time, so that a burst is averaged over two. Between ticks the average stands
// still, and with it the answer of reached.
type rate struct {
	// fixed after newRate
	limit float64
	tick  time.Duration

	count   atomic.Int64  // all that was ever counted
	average atomic.Uint64 // bits of a float64, per second
	trips   atomic.Uint32 // how often the limit was reached, after having been kept

	// owned by whoever calls turn
	ring []int64 // counts of the last ticks
	n    int     // how many of them are filled
	next int
	seen int64 // count at the last tick
	idle int   // ticks in a row without anything counted
	over bool
}

func newRate(limit float64, ticks int, tick time.Duration) *rate {
	return &rate{limit: limit, tick: tick, ring: make([]int64, ticks)}
}

// idleReset is how long after the last count a counter begins anew.
const idleReset = 5 * time.Minute

func (r *rate) add(n int) { r.count.Add(int64(n)) }

// perSecond returns the average at the last tick.
func (r *rate) perSecond() float64 { return math.Float64frombits(r.average.Load()) }

// reached reports whether the average is at the limit or above it.
func (r *rate) reached() bool { return r.perSecond() >= r.limit }

// exceeded reports whether the average is above the limit.
func (r *rate) exceeded() bool { return r.perSecond() > r.limit }

// turn ends a tick. It reports whether the average has just reached the limit.
func (r *rate) turn() bool {
	now := r.count.Load()
	n := now - r.seen
	r.seen = now
	switch {
	case n > 0:
		r.idle = 0
		if r.n == 0 {
			r.push(0) // the tick at which the counter was created
		}
		r.push(n)
	case r.n == 0:
		return false
	default:
		if r.idle++; time.Duration(r.idle)*r.tick >= idleReset {
			r.n, r.next, r.idle = 0, 0, 0
		} else {
			r.push(0)
		}
	}
	sum := int64(0)
	for _, v := range r.ring[:r.n] {
		sum += v
	}
	average := 0.0
	if r.n > 0 {
		average = float64(sum) / float64(r.n) / r.tick.Seconds()
	}
	r.average.Store(math.Float64bits(average))
	was := r.over
	r.over = average >= r.limit
	if r.over && !was {
		r.trips.Add(1)
		return true
	}
	return false
}

func (r *rate) push(n int64) {
	r.ring[r.next] = n
	r.next = (r.next + 1) % len(r.ring)
	r.n = min(r.n+1, len(r.ring))
}

// turnLimits ends the ticks that are due, second being the number of seconds
// since Run began. Each limit that was reached is one line in the log, not one
// for each who meets it.
func (s *Server) turnLimits(second int) {
	l := s.limits
	if l.requests.turn() {
		s.logReached(sluice.CodeTooManyRequests, l.requests)
	}
	if second%int(slowTick/time.Second) != 0 {
		return
	}
	for _, x := range []struct {
		code sluice.Code
		rate *rate
	}{
		{sluice.CodeTooManyJoins, l.joins},
		{sluice.CodeTooManyEvents, l.events},
		{sluice.CodeTooManyChanges, l.changes},
		{sluice.CodeTooManyPresence, l.presence},
	} {
		if x.rate.turn() {
			s.logReached(x.code, x.rate)
		}
	}
}

func (s *Server) logReached(code sluice.Code, r *rate) {
	s.log.Error("limit reached", sluice.LogCode, code, "limit", r.limit, "per_second", r.perSecond(), "remedy", sluice.Refuse(code).Remedy)
}

// shutCondemned ends the channels that met the limit on events.
func (s *Server) shutCondemned() {
	for _, ch := range s.limits.takeCondemned() {
		c := ch.conn
		c.handleMu.Lock()
		if !c.finished && ch.joined {
			s.metrics.ClosedEvents.Add(1)
			c.shutdown(ch, extSystem, s.limitText(sluice.CodeTooManyEvents))
		}
		c.handleMu.Unlock()
	}
}

// limitText is the text of the system message that ends a channel for a limit;
// in explain mode it says what to do.
func (s *Server) limitText(code sluice.Code) string {
	r := sluice.Refuse(code)
	if s.cfg.Explain {
		return r.Text + " | " + string(r.Code) + ": " + r.Remedy
	}
	return r.Text
}
