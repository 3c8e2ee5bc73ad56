package backoff_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-dev/sluice/internal/backoff"
)

func TestWaitGrowsToMax(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := backoff.Backoff{Min: time.Second, Max: 4 * time.Second}
		for _, want := range []time.Duration{1, 2, 4, 4} {
			start := time.Now()
			if err := b.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d < want*time.Second || d > want*time.Second*5/4 {
				t.Errorf("waited %s, want %d s and up to a quarter", d, want)
			}
		}
		b.Reset()
		start := time.Now()
		_ = b.Wait(t.Context())
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("waited %s after Reset", d)
		}
	})
}

func TestWaitEndsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := backoff.Backoff{Min: time.Hour, Max: time.Hour}
	if err := b.Wait(ctx); err == nil {
		t.Error("no error")
	}
}
