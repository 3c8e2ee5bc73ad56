package wal_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/wal"
)

// BenchmarkDecode reads the same rows twice: as raw messages of the stream that
// nobody looks into, and as changes that the reader hands on. Both begin with all
// rows waiting in the log. The ratio is the reader's rate to the raw one.
func BenchmarkDecode(b *testing.B) {
	for _, perTransaction := range []int{1, 1000} {
		b.Run(fmt.Sprintf("rows_per_transaction=%d", perTransaction), func(b *testing.B) {
			const rows = 200000
			var raw, ours float64
			for b.Loop() {
				db := pgtest.New(b)
				db.Exec("create table public.t (id int primary key, room int, author uuid, body text, at timestamptz default now()); alter publication supabase_realtime add table public.t")
				order := []string{"raw", "ours", "ours2", "raw2"} // whoever reads first warms the log up
				for _, slot := range order {
					db.Exec("select pg_create_logical_replication_slot('" + slot + "_' || current_database(), 'pgoutput')")
				}
				db.Exec(fmt.Sprintf(`do $$ begin for i in 1..%d loop
					insert into public.t select i * %d + n, n, gen_random_uuid(), 'a message of some forty characters or so' from generate_series(1, %[2]d) n; commit; end loop; end $$`,
					rows/perTransaction, perTransaction))
				for _, slot := range order {
					if strings.HasPrefix(slot, "raw") {
						raw += rows / readRaw(b, db, slot, rows)
					} else {
						ours += rows / readOurs(b, db, slot, rows)
					}
				}
			}
			b.ReportMetric(raw/float64(2*b.N), "raw-rows/s")
			b.ReportMetric(ours/float64(2*b.N), "rows/s")
			b.ReportMetric(ours/raw, "ratio")
		})
	}
}

// readRaw returns the seconds that reading rows takes.
func readRaw(b *testing.B, db *pgtest.DB, slot string, rows int) float64 {
	b.Helper()
	cfg, err := pgconn.ParseConfig(string(db.URL("supabase_admin")))
	if err != nil {
		b.Fatal(err)
	}
	cfg.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(context.Background())
	clock := newClock()
	err = pglogrepl.StartReplication(b.Context(), conn, slot+"_"+db.Name, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication, PluginArgs: []string{"proto_version '1'", `publication_names 'sluice'`, "messages 'true'"},
	})
	if err != nil {
		b.Fatal(err)
	}
	for n := 0; n < rows; {
		msg, err := conn.ReceiveMessage(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		// An insert: a header of 24 bytes and the message, which begins with I.
		if d, ok := msg.(*pgproto3.CopyData); ok && len(d.Data) > 25 && d.Data[0] == pglogrepl.XLogDataByteID && d.Data[25] == 'I' {
			n++
		}
	}
	return clock()
}

func readOurs(b *testing.B, db *pgtest.DB, slot string, rows int) float64 {
	b.Helper()
	var n atomic.Int64
	done := make(chan struct{})
	r, err := wal.New(wal.Config{
		URL: db.URL("supabase_admin"), Slot: slot + "_" + db.Name, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Handle: func(_ context.Context, batch sluice.ChangeBatch) error {
			if n.Add(int64(len(batch.Changes))) == int64(rows) {
				close(done)
			}
			return nil
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	clock := newClock()
	ended.Go(func() { _ = r.Run(ctx) }) // it returns nil
	<-done
	took := clock()
	cancel()
	ended.Wait()
	return took
}

// newClock returns a function that tells the seconds since.
func newClock() func() float64 {
	start := time.Now()
	return func() float64 { return time.Since(start).Seconds() }
}
