package wal_test

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/wal"
)

// A large transaction passes in bounded batches, in order, and memory does not grow
// with it: PostgreSQL puts what is not committed on its disk. SLUICE_LARGE is the
// number of rows.
func TestLargeTransaction(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("SLUICE_LARGE"))
	if err != nil {
		n = 20_000
	}
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	const most = 128 << 20 // 32 MB may wait, and what the collector has not got to
	var next, batches int
	var heap uint64
	var commit sluice.LSN
	done := make(chan struct{})
	s := newSink()
	r := background(t, db, s, func(c *wal.Config) {
		c.Handle = func(_ context.Context, b sluice.ChangeBatch) error {
			if commit == 0 {
				commit = b.Commit
			}
			if b.Commit != commit || b.First != next || len(b.Changes) > sluice.MaxBatchChanges {
				t.Errorf("batch at %s from %d with %d changes; expected %s from %d", b.Commit, b.First, len(b.Changes), commit, next)
			}
			next += len(b.Changes)
			if batches++; batches%64 == 0 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				heap = max(heap, m.HeapAlloc)
			}
			if b.Last {
				close(done)
			}
			return nil
		}
	})
	live(t, r)
	began := time.Now()
	db.Exec("insert into public.t select n, repeat('x', 100) from generate_series(1, $1) n", n)
	written := time.Since(began)
	select {
	case <-done:
	case <-time.After(10 * time.Minute):
		t.Fatalf("%d of %d rows", next, n)
	}
	t.Logf("%d rows in %d batches, %s after %s of writing; heap %d MB at most", next, batches, time.Since(began).Round(time.Millisecond), written.Round(time.Millisecond), heap>>20)
	if next != n || heap > most {
		t.Errorf("%d of %d rows, heap %d bytes", next, n, heap)
	}
}
