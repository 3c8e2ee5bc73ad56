package wal_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/wal"
)

// startLanes runs a reader with both handlers until the test ends.
func startLanes(t *testing.T, db *pgtest.DB, changes, messages *sink) *wal.Reader {
	t.Helper()
	r, err := wal.New(wal.Config{
		URL: db.URL("supabase_admin"), Slot: "sluice_" + db.Name, Logger: slog.New(slog.DiscardHandler), Handle: changes.handle,
		Messages: func(ctx context.Context, b sluice.ChangeBatch) error {
			if b.Sent.Before(b.CommitTime) || b.CommitTime.IsZero() {
				t.Errorf("committed %s, sent %s", b.CommitTime, b.Sent)
			}
			return messages.handle(ctx, b)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }() // waited for below
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	wait, cancelWait := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancelWait()
	if err := r.Live(wait); err != nil {
		t.Fatalf("Live: %v (%v)", err, r.State().Err)
	}
	return r
}

// eventsOf returns the events of the rows of realtime.messages that a sink got.
func eventsOf(lines []string) []string {
	out := []string{}
	for _, l := range lines {
		// INSERT realtime.messages topic,extension,payload,event,…
		if rest, ok := strings.CutPrefix(l, "INSERT realtime.messages room,broadcast,{},"); ok {
			event, _, _ := strings.Cut(rest, ",")
			out = append(out, event)
		} else if l == "REPEATED" {
			out = append(out, l)
		}
	}
	return out
}

const insertMessage = "insert into realtime.messages (topic, extension, payload, event) values ('room', 'broadcast', '{}', $1)"

// Rows of realtime.messages pass the changes, whose handler hangs, also over a
// connection that breaks; everything comes once, in order.
func TestMessagesPassChanges(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	changes, messages := newSink(), newSink()
	changes.block = make(chan struct{})
	r := startLanes(t, db, changes, messages)
	before := flushed(t, db)
	const n = 300 // more than once filled a queue of batches
	var want []string
	send := func(from, to int) {
		for i := from; i < to; i++ {
			db.Exec("insert into public.t values ($1)", i)
			event := fmt.Sprint("ev", i)
			db.Exec(insertMessage, event)
			want = append(want, event)
		}
	}
	send(0, n)
	if diff := cmp.Diff(want, eventsOf(messages.wait(t, n))); diff != "" {
		t.Error(diff)
	}
	confirmed := max(r.State().Handed, before)
	db.Exec("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1", "sluice_"+db.Name)
	send(n, n+10)
	if diff := cmp.Diff(want, eventsOf(messages.wait(t, n+10))); diff != "" {
		t.Error(diff)
	}
	if at := flushed(t, db); at > confirmed {
		t.Errorf("confirmed up to %s while the changes behind %s wait", at, confirmed)
	}
	close(changes.block)
	// The same rows are changes, too.
	got := changes.wait(t, 2*len(want))
	if diff := cmp.Diff(want, eventsOf(got)); diff != "" {
		t.Error(diff)
	}
	if len(got) != 2*len(want) || len(eventsOf(messages.wait(t, 1))) != len(want) {
		t.Errorf("%d changes, %d messages", len(got), len(eventsOf(messages.wait(t, 1))))
	}
}

// A large transaction of both kinds: the messages come in batches of their own.
func TestMessagesOfALargeTransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", table)
	changes, messages := newSink(), newSink()
	startLanes(t, db, changes, messages)
	const n = 2000
	db.Exec(fmt.Sprintf(`do $$ begin for i in 1..%d loop
  insert into public.t values (i);
  insert into realtime.messages (topic, extension, payload, event) values ('room', 'broadcast', '{}', 'ev' || i);
  update realtime.messages set updated_at = now() where event = 'ev' || i and i = 1;
  delete from realtime.messages where event = 'ev2' and i = 2;
end loop; end $$`, n))
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint("ev", i+1))
	}
	if diff := cmp.Diff(want, eventsOf(messages.wait(t, n))); diff != "" {
		t.Error(diff)
	}
	if got := changes.wait(t, 2*n); got[0] != "INSERT public.t 1,null,null" {
		t.Errorf("first change %s", got[0])
	}
}

// The partitions' rows come under the name of realtime.messages, whatever the
// user does with publications and partitions of his own.
//
// spec: pgchanges:114
func TestMessagesAreAlwaysPublished(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	messages := newSink()
	startLanes(t, db, newSink(), messages)
	var want []string
	check := func(step, sql string) {
		t.Helper()
		db.Exec(sql)
		db.Exec(insertMessage, step)
		want = append(want, step)
		if diff := cmp.Diff(want, eventsOf(messages.wait(t, len(want)))); diff != "" {
			t.Fatalf("after %s: %s", sql, diff)
		}
	}
	check("as made", "select 1")
	check("only messages", "alter publication supabase_realtime set table realtime.messages")
	check("partitions by name", "do $$ begin execute (select format('alter publication supabase_realtime add table %s', string_agg(inhrelid::regclass::text, ', ')) from pg_inherits where inhparent = 'realtime.messages'::regclass); end $$")
	check("no publication", "drop publication supabase_realtime")
	check("ours without it", "alter publication sluice drop table realtime.messages")
	check("ours with others", "create table public.extra (id int); alter publication sluice add table public.extra")
	check("ours as leaves", "alter publication sluice set (publish_via_partition_root = false, publish = 'update')")
	check("partitions made anew", `do $$ declare p regclass; begin
for p in select inhrelid from pg_inherits where inhparent = 'realtime.messages'::regclass loop execute 'drop table ' || p; end loop;
perform sluice.make_message_partitions(); end $$`)
	check("ours dropped", "begin; drop publication sluice; select sluice.sync_publication(); commit")
}
