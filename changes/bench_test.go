package changes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

// alwaysLive stands for the stream: benchmarks hand batches on themselves.
type alwaysLive struct{}

func (alwaysLive) Live(context.Context) error { return nil }

func (alwaysLive) Handed() sluice.LSN { return 0 }

const benchSchema = `
create table public.members (room int, user_id uuid, primary key (room, user_id));
create index on public.members (user_id);
create table public.messages (id int primary key, room int not null, author uuid, body text, at timestamptz);
grant select on public.members, public.messages to authenticated;
alter publication supabase_realtime add table public.messages;`

var benchPolicies = map[string]string{
	"off":    "",
	"owner":  "alter table public.messages enable row level security; create policy p on public.messages using ((select auth.uid()) = author)",
	"user":   "alter table public.messages enable row level security; create policy p on public.messages using (current_user <> 'nobody' and auth.uid() = author)",
	"member": "alter table public.messages enable row level security; create policy p on public.messages using (exists (select from public.members m where m.room = messages.room and m.user_id = (select auth.uid())))",
}

// bench is a service without a stream, with n subscribers who are users 0 to
// n-1, each alone in the room of the same number.
type bench struct {
	b         *testing.B
	svc       *changes.Service
	rel       *sluice.Relation
	delivered atomic.Int64
	more      chan struct{}
	lsn       sluice.LSN
}

// benchDB makes the database of one benchmark with its sub-benchmarks.
func benchDB(b *testing.B) *pgtest.DB {
	b.Helper()
	db := pgtest.New(b)
	db.Exec(benchSchema)
	db.Exec("insert into public.members select g, ('00000000-0000-4000-8000-' || lpad(g::text, 12, '0'))::uuid from generate_series(0, 10000) g; analyze public.members")
	return db
}

func newBench(b *testing.B, db *pgtest.DB, rls string, n int, params func(i int) string) *bench {
	b.Helper()
	db.Exec("drop policy if exists p on public.messages; alter table public.messages disable row level security")
	if s := benchPolicies[rls]; s != "" {
		db.Exec(s)
	}
	svc, err := changes.New(changes.Config{
		Admin: db.Pool("supabase_admin"), User: db.Pool("authenticator"), Stream: alwaysLive{}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	x := &bench{b: b, svc: svc, more: make(chan struct{}, 1), lsn: 1 << 60}
	var oid uint32
	if err := db.Admin().QueryRow(b.Context(), "select 'public.messages'::regclass::oid").Scan(&oid); err != nil {
		b.Fatal(err)
	}
	x.rel = &sluice.Relation{OID: oid, Schema: "public", Name: "messages", Identity: 'd', Columns: []sluice.Column{
		{Name: "id", Type: 23, Key: true}, {Name: "room", Type: 23}, {Name: "author", Type: 2950}, {Name: "body", Type: 25}, {Name: "at", Type: 1184},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { _ = svc.Run(ctx) }) // it returns nil
	b.Cleanup(func() { cancel(); ended.Wait() })
	for i := range n {
		sub, _, err := svc.Subscribe(b.Context(), sluice.ChangeSubscription{
			Claims: authenticated(i), Topic: "t", Deliver: x.deliver,
			Bindings: []sluice.ChangeBinding{{ID: 1, Params: json.RawMessage(params(i))}},
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(sub.Close)
	}
	return x
}

func (x *bench) deliver(sluice.ChangeEvent) {
	x.delivered.Add(1)
	select {
	case x.more <- struct{}{}:
	default:
	}
}

// run hands on b.N changes in batches of size, for the users 0 to n-1 in turn,
// and waits for want deliveries of each.
func (x *bench) run(n, size int, want int64) {
	b := x.b
	body := []byte("a message of some forty characters or so")
	at := []byte(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Format("2006-01-02 15:04:05.999999-07"))
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		batch := sluice.ChangeBatch{Commit: x.lsn, CommitTime: time.Now(), XID: 3, Last: true}
		x.lsn++
		for range min(size, b.N-done) {
			u := done % n
			id := []byte(fmt.Sprint(done))
			batch.Changes = append(batch.Changes, sluice.Change{Kind: sluice.ChangeInsert, Relation: x.rel, New: []sluice.Value{
				{Kind: sluice.ValueText, Text: id},
				{Kind: sluice.ValueText, Text: []byte(fmt.Sprint(u))},
				{Kind: sluice.ValueText, Text: []byte(user(u))},
				{Kind: sluice.ValueText, Text: body},
				{Kind: sluice.ValueText, Text: at},
			}})
			done++
		}
		if err := x.svc.Handle(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	for x.delivered.Load() < int64(b.N)*want {
		<-x.more
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "pairs/s")
}

func whole(int) string { return `{"schema":"public","table":"messages"}` }

// BenchmarkDecide: distinct users, one of them may see each change.
func BenchmarkDecide(b *testing.B) {
	db := benchDB(b)
	for _, rls := range []string{"owner", "member", "user"} {
		for _, n := range []int{1, 500, 10000} {
			if rls == "user" && n > 500 {
				continue // minutes
			}
			for _, size := range []int{1, 100} {
				b.Run(fmt.Sprintf("policy=%s/subs=%d/batch=%d", rls, n, size), func(b *testing.B) {
					newBench(b, db, rls, n, whole).run(n, size, 1)
				})
			}
		}
	}
}

// BenchmarkMatch: no policies, a filter each, one of them matches.
func BenchmarkMatch(b *testing.B) {
	db := benchDB(b)
	for _, n := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("subs=%d", n), func(b *testing.B) {
			newBench(b, db, "off", n, func(i int) string {
				return fmt.Sprintf(`{"schema":"public","table":"messages","filter":"author=eq.%s"}`, user(i))
			}).run(n, 100, 1)
		})
	}
}

// BenchmarkDeliver: no policies, everybody sees everything.
func BenchmarkDeliver(b *testing.B) {
	db := benchDB(b)
	for _, n := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("subs=%d", n), func(b *testing.B) {
			newBench(b, db, "off", n, whole).run(n, 100, int64(n))
		})
	}
}

// BenchmarkRender: values alone.
func BenchmarkRender(b *testing.B) {
	for _, tt := range []struct{ typ, text string }{
		{"int8", "1234567890"},
		{"float8", "1.25e+20"},
		{"text", "a message of some forty characters or so"},
		{"timestamptz", "2026-01-02 03:04:05.123456+00"},
		{"jsonb", `{"a": [1, 2, 3], "b": {"c": "d"}}`},
		{"array text", `{a,"b c",NULL,"d\"e"}`},
	} {
		typ := changes.Type(tt.typ)
		b.Run(tt.typ, func(b *testing.B) {
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				dst = changes.AppendJSON(dst[:0], []byte(tt.text), typ)
			}
		})
	}
}
