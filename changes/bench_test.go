package changes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
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
	// Each user is alone in a room, in one of ten, and in one of a fifth of all.
	db.Exec(`insert into public.members select r, ('00000000-0000-4000-8000-' || lpad(g::text, 12, '0'))::uuid
		from generate_series(0, 10000) g, lateral (values (g), (100000 + g / 10), (200000 + g % 5)) v (r); analyze public.members`)
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
func (x *bench) run(n, size int, want int64) { x.runRooms(n, size, want, func(u int) int { return u }) }

// runRooms is run with the room that a change of a user is in.
func (x *bench) runRooms(n, size int, want int64, room func(u int) int) {
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
				{Kind: sluice.ValueText, Text: []byte(fmt.Sprint(room(u)))},
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

// BenchmarkAudience: 10,000 distinct users under the membership policy; one, ten, or
// one in five may see each change.
func BenchmarkAudience(b *testing.B) {
	const n = 10000
	db := benchDB(b)
	for _, tt := range []struct {
		name string
		sees int64
		room func(u int) int
	}{
		{"1", 1, func(u int) int { return u }},
		{"10", 10, func(u int) int { return 100000 + u/10 }},
		{"2000", n / 5, func(u int) int { return 200000 + u%5 }},
	} {
		b.Run("see="+tt.name, func(b *testing.B) { newBench(b, db, "member", n, whole).runRooms(n, 100, tt.sees, tt.room) })
	}
}

// BenchmarkStatementEach is the other way, to compare with: for each change and each
// subscriber one statement under their claims, with a cached plan, in one loop in
// the database. It is the original's way without its overhead.
func BenchmarkStatementEach(b *testing.B) {
	db := benchDB(b)
	db.Exec(`create function public.each_subscriber(change int, n int) returns int language plpgsql as $$
declare seen int := 0; hit bool;
begin
  set local role authenticated;
  for i in 0 .. n - 1 loop
    perform set_config('request.jwt.claims', json_build_object('role', 'authenticated', 'sub', '00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::text, true);
    select exists (select from public.messages m where m.id = change) into hit;
    seen := seen + hit::int;
  end loop;
  return seen;
end $$;
insert into public.messages select g, g, ('00000000-0000-4000-8000-' || lpad(g::text, 12, '0'))::uuid, 'a message', now() from generate_series(0, 10000) g; analyze public.messages`)
	pool := db.Pool("authenticator")
	for _, rls := range []string{"owner", "member"} {
		for _, n := range []int{500, 10000} {
			b.Run(fmt.Sprintf("policy=%s/subs=%d", rls, n), func(b *testing.B) {
				db.Exec("drop policy if exists p on public.messages; alter table public.messages disable row level security")
				db.Exec(benchPolicies[rls])
				for done := 0; b.Loop(); done++ {
					var seen int
					if err := pool.QueryRow(b.Context(), "select public.each_subscriber($1, $2)", done%n, n).Scan(&seen); err != nil || seen != 1 {
						b.Fatalf("%d see it, %v", seen, err)
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
			})
		}
	}
}

// BenchmarkSubscription measures what a subscription costs: time to subscribe, and
// heap while it lives.
func BenchmarkSubscription(b *testing.B) {
	db := benchDB(b)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, n := range []int{10000} {
		b.Run(fmt.Sprintf("subs=%d", n), func(b *testing.B) {
			for b.Loop() {
				before, start := heap(), time.Now()
				x := newBench(b, db, "owner", n, whole)
				took := time.Since(start)
				b.ReportMetric(float64(heap()-before)/float64(n), "B/sub")
				b.ReportMetric(float64(n)/took.Seconds(), "subs/s")
				runtime.KeepAlive(x)
			}
		})
	}
}

// BenchmarkLatency: from the call of INSERT to the delivery, over a real stream, one
// change at a time: the statement, its commit, and all that Sluice does. Often the
// change is there before COMMIT has returned.
func BenchmarkLatency(b *testing.B) {
	for _, rls := range []string{"off", "owner", "member", "user"} {
		b.Run("policy="+rls, func(b *testing.B) {
			db := benchDB(b)
			if s := benchPolicies[rls]; s != "" {
				db.Exec(s)
			}
			f := newFeed(b, db)
			got := make(chan time.Time, 1)
			for i := range 100 {
				sub, _, err := f.Subscribe(b.Context(), sluice.ChangeSubscription{
					Claims: authenticated(i), Topic: "t", Bindings: []sluice.ChangeBinding{{ID: 1, Params: json.RawMessage(whole(i))}},
					Deliver: func(sluice.ChangeEvent) {
						if i == 7 {
							got <- time.Now()
						}
					},
				})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(sub.Close)
			}
			var took []time.Duration
			for id := 0; b.Loop(); id++ {
				start := time.Now()
				db.Exec("insert into public.messages values ($1, 7, $2, 'a message', now())", id, user(7))
				took = append(took, (<-got).Sub(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
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
