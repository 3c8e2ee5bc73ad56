package auth

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-dev/sluice/pg"
)

const (
	fiveMinutes = 5 * time.Minute
	anHour      = time.Hour
	// burst is how many requests an address may make at once.
	burst = 30
	// maxBuckets bounds memory. When it is reached, full buckets are dropped,
	// and if there are none, everyone starts anew.
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

// allow takes one request of addr. IPv6 addresses count by their /64.
func (b *buckets) allow(addr netip.Addr, now time.Time) bool {
	if b == nil {
		return true
	}
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	who, err := addr.Prefix(bits)
	if err != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	full, found := b.full[who]
	if !found && len(b.full) >= maxBuckets {
		b.sweep(now)
	}
	if full.Before(now) {
		full = now
	}
	if full = full.Add(b.every); full.Sub(now) > burst*b.every {
		return false
	}
	b.full[who] = full
	return true
}

func (b *buckets) sweep(now time.Time) {
	for who, full := range b.full {
		if full.Before(now) {
			delete(b.full, who)
		}
	}
	if len(b.full) >= maxBuckets {
		clear(b.full)
	}
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
