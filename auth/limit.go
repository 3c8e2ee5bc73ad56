package auth

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-dev/sluice/pg"
)

const (
	fiveMinutes = 5 * time.Minute
	anHour      = time.Hour
	// burst is how many requests an address may make at once.
	burst = 30
	// burstWide is how many the /48 of an IPv6 address may make at once: as many as
	// 16 addresses. A site gets a /48 or a part of one, and 65,536 networks of /64 in
	// it; providers of mobile phones put as many customers there.
	burstWide = 16 * burst
	// maxBuckets bounds memory. When it is reached, the half that is soonest full
	// again makes room: there the least is forgotten.
	maxBuckets = 10_000
)

// buckets are token buckets, one for each address. nil allows everything. They
// are the only state in the process: a limit counts for each node by itself. What
// must count for all nodes together is in the database; see take.
type buckets struct {
	every time.Duration // one request is earned in this time

	mu   sync.Mutex
	full map[netip.Prefix]time.Time // when the bucket will be full again
}

func newBuckets(requests int, in time.Duration) *buckets {
	if requests <= 0 {
		return nil
	}
	return &buckets{every: in / time.Duration(requests), full: map[netip.Prefix]time.Time{}}
}

// allow takes one request of addr. An IPv6 address counts by its /64, which one
// machine has for itself, and by its /48.
func (b *buckets) allow(addr netip.Addr, now time.Time) bool {
	if b == nil {
		return true
	}
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() {
		return b.allowAll(now, share{netip.PrefixFrom(addr, 32), burst})
	}
	return b.allowAll(now, share{netip.PrefixFrom(addr, 64).Masked(), burst}, share{netip.PrefixFrom(addr, 48).Masked(), burstWide})
}

// share is a network and how many requests it may make at once.
type share struct {
	who  netip.Prefix
	most int
}

// allowAll takes one request of every share, or none. All are full again after the
// same time, so what may make more of them earns them faster.
func (b *buckets) allowAll(now time.Time, shares ...share) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	whole := burst * b.every
	full := make([]time.Time, len(shares))
	for i, s := range shares {
		if full[i] = b.full[s.who]; full[i].Before(now) {
			full[i] = now
		}
		if full[i] = full[i].Add(whole / time.Duration(s.most)); full[i].Sub(now) > whole {
			return false
		}
	}
	for i, s := range shares {
		if _, found := b.full[s.who]; !found && len(b.full) >= maxBuckets {
			b.makeRoom()
		}
		b.full[s.who] = full[i]
	}
	return true
}

// makeRoom drops half of the buckets. A full one is as good as none, and is among
// them before any other.
func (b *buckets) makeRoom() {
	times := slices.SortedFunc(maps.Values(b.full), time.Time.Compare)
	middle := times[len(times)/2]
	maps.DeleteFunc(b.full, func(_ netip.Prefix, full time.Time) bool { return !full.After(middle) })
}

// take takes one use of the bucket called name, which all nodes share, and returns
// 0, or how long to wait when there is none. A use is earned back every so often;
// ahead of that come extra ones.
func (s *Server) take(ctx context.Context, tx pg.Tx, name string, every time.Duration, extra int) (wait time.Duration, err error) {
	return takeAt(ctx, tx, name, s.cfg.Now(), every, extra)
}

// takeAt is take at a time.
func takeAt(ctx context.Context, tx pg.Tx, name string, now time.Time, every time.Duration, extra int) (wait time.Duration, err error) {
	var seconds float64
	err = tx.QueryRow(ctx, sql("limit_take"), name, now, every, time.Duration(extra)*every).Scan(&seconds)
	return time.Duration(seconds * float64(time.Second)), pg.Wrap(err, "limit_take")
}
