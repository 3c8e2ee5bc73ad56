// Package backoff spaces out attempts that fail.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff doubles the wait after every failure, from Min to Max, and adds up to
// a quarter at random so that many waiters do not come back together. The zero
// value is ready with 100 ms and 5 s.
type Backoff struct {
	Min, Max time.Duration
	next     time.Duration
}

// Wait sleeps, or returns ctx's error when it ends first.
func (b *Backoff) Wait(ctx context.Context) error {
	lo, hi := b.Min, b.Max
	if lo == 0 {
		lo = 100 * time.Millisecond
	}
	if hi == 0 {
		hi = 5 * time.Second
	}
	d := min(max(b.next, lo), hi)
	b.next = 2 * d
	t := time.NewTimer(d + rand.N(d/4+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Reset makes the next wait the shortest.
func (b *Backoff) Reset() { b.next = 0 }
