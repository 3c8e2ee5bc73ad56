package rest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/rest"
)

const benchSQL = `
create table public.bench_items (id bigint primary key, owner uuid not null, name text not null, price int not null);
insert into public.bench_items select i, '` + alice + `', 'item number ' || i, i % 1000 from generate_series(1, 10000) i;
create table public.bench_parts (id bigint primary key, item bigint not null references public.bench_items, name text not null);
insert into public.bench_parts select i, (i + 9) / 10, 'part ' || i from generate_series(1, 100000) i;
create index on public.bench_parts (item);
create table public.bench_log (id bigint generated always as identity primary key, owner uuid not null default auth.uid(), name text, price int);
alter table public.bench_items enable row level security;
alter table public.bench_log enable row level security;
create policy bench_owner on public.bench_items for select to authenticated
  using (owner = (select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid));
create policy bench_log on public.bench_log to authenticated
  using (owner = (select auth.uid())) with check (owner = (select auth.uid()));
create function public.bench_add(a int, b int) returns int language sql immutable as $$ select a + b $$;
analyze public.bench_items, public.bench_parts;`

const benchClaims = `{"sub":"` + alice + `","role":"authenticated"}`

// benchConns is the size of both pools and the number of clients.
const benchConns = 8

// work is what a benchmark asks for: of Sluice a request, of the minimal handler
// a statement with one parameter. %d in the path is that parameter where arg is
// empty, a number up to 9,900.
type work struct {
	name, line, body, prefer string
	sql, arg                 string
	write                    bool
	want                     string // what the body begins with
}

var works = []work{
	{
		name: "row by key", line: "GET /bench_items?id=eq.%d", want: `[{"id":`,
		sql: "select coalesce(json_agg(t), '[]')::text from (select * from public.bench_items where id = $1) t",
	},
	{
		name: "100 rows", line: "GET /bench_items?id=gte.%d&order=id&limit=100", want: `[{"id":`,
		sql: "select coalesce(json_agg(t), '[]')::text from (select * from public.bench_items where id >= $1 order by id limit 100) t",
	},
	{
		name: "embed", line: "GET /bench_items?id=gte.%d&order=id&limit=20&select=id,name,bench_parts(id,name)", want: `[{"id":`,
		sql: `select coalesce(json_agg(t), '[]')::text from (select id, name, (select coalesce(json_agg(p), '[]') from
			(select id, name from public.bench_parts where item = i.id) p) as bench_parts from public.bench_items i where id >= $1 order by id limit 20) t`,
	},
	{
		name: "count", line: "GET /bench_items?id=gte.%d&order=id&limit=1&select=id", prefer: "count=exact", want: `[{"id":`,
		sql: `select coalesce(json_agg(t), '[]')::text || (select count(*) from public.bench_items where id >= $1)
			from (select id from public.bench_items where id >= $1 order by id limit 1) t`,
	},
	{
		name: "rpc", line: "POST /rpc/bench_add", body: `{"a":3,"b":4}`, arg: `{"a":3,"b":4}`, want: "7",
		sql: "select to_json(public.bench_add(a, b))::text from json_to_record($1::json) as _ (a int, b int)",
	},
	{
		name: "insert", line: "POST /bench_log", body: `{"name":"one","price":1}`, arg: `{"name":"one","price":1}`, write: true,
		sql: "with w as (insert into public.bench_log (name, price) select name, price from json_to_record($1::json) as _ (name text, price int) returning 1) select '' from w limit 1",
	},
	{
		name: "bulk insert of 1000", line: "POST /bench_log?columns=name,price", body: thousand, arg: thousand, write: true,
		sql: "with w as (insert into public.bench_log (name, price) select name, price from json_to_recordset($1::json) as _ (name text, price int) returning 1) select '' from w limit 1",
	},
}

var thousand = "[" + strings.Repeat(`{"name":"one of many","price":7},`, 999) + `{"name":"the last","price":8}]`

// request is the number'th request of a work.
func (w *work) request(number int64) *http.Request {
	line := w.line
	if w.arg == "" {
		line = fmt.Sprintf(line, number)
	}
	method, path, _ := strings.Cut(line, " ")
	r := httptest.NewRequest(method, path, strings.NewReader(w.body))
	if w.prefer != "" {
		r.Header.Set("Prefer", w.prefer)
	}
	return r
}

// argument is what the statement gets for the number'th request.
func (w *work) argument(number int64) any {
	if w.arg == "" {
		return number
	}
	return w.arg
}

// benchPool is a pool of the login. As the user: every connection is one's for
// good, so that a statement is all that it costs.
func benchPool(b *testing.B, s *stack, asUser bool) *pgxpool.Pool {
	b.Helper()
	cfg, err := pgxpool.ParseConfig(string(s.URL("authenticator")))
	if err != nil {
		b.Fatal(err)
	}
	cfg.MaxConns = benchConns
	if asUser {
		cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, "select set_config('role', 'authenticated', false), set_config('request.jwt.claims', $1, false)", benchClaims)
			return err
		}
	}
	pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return pool
}

// minimal is the least that a handler can do: the answer as JSON, in a
// transaction with role and claims, in one round trip with prepared statements.
func (w *work) minimal(pool *pgxpool.Pool) http.Handler {
	begin := "begin read only"
	if w.write {
		begin = "begin"
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var arg any
		if w.arg == "" {
			_, value, _ := strings.Cut(r.URL.Query().Get("id"), ".")
			id, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				http.Error(rw, "want id=eq.N", http.StatusBadRequest)
				return
			}
			arg = id
		} else {
			text, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(rw, err.Error(), http.StatusBadRequest)
				return
			}
			arg = string(text)
		}
		var body []byte
		var batch pgx.Batch
		batch.Queue(begin)
		batch.Queue("select set_config('role', 'authenticated', true), set_config('request.jwt.claims', $1, true)", benchClaims)
		batch.Queue(w.sql, arg).QueryRow(func(row pgx.Row) error { return row.Scan(&body) })
		batch.Queue("commit")
		if err := pool.SendBatch(r.Context(), &batch).Close(); err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		rw.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = rw.Write(body)
	})
}

// benchStack is Sluice's handler as a user, without a gateway.
func benchStack(b *testing.B) (*stack, http.Handler) {
	b.Helper()
	s := startWith(b, benchSQL, func(c *rest.Config) { c.Schemas = []string{"public"} })
	// What the login may not read cannot be described before the role is set.
	s.Exec("grant all on public.bench_items, public.bench_parts, public.bench_log to authenticator")
	id := sluice.Identity{Claims: sluice.Claims{Role: "authenticated", Subject: alice, JSON: json.RawMessage(benchClaims)}}
	return s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.server.ServeHTTP(w, r.WithContext(sluice.WithIdentity(r.Context(), id)))
	})
}

// BenchmarkWork compares what clients ask for most with a minimal handler and
// with the statement alone, on a connection that is the user's already: one
// client asks each in turn. ratio is Sluice's rate in relation to the minimal
// handler's, bare in relation to the statement's.
func BenchmarkWork(b *testing.B) {
	s, asUser := benchStack(b)
	login, user := benchPool(b, s, false), benchPool(b, s, true)
	for i := range works {
		w := &works[i]
		handlers := [2]http.Handler{w.minimal(login), asUser}
		b.Run(w.name, func(b *testing.B) {
			var took [3]time.Duration
			number := int64(0)
			for b.Loop() {
				number = number%9900 + 1
				for which, h := range handlers {
					rec, r := httptest.NewRecorder(), w.request(number)
					start := time.Now()
					h.ServeHTTP(rec, r)
					took[which] += time.Since(start)
					if rec.Code >= 300 || !strings.HasPrefix(rec.Body.String(), w.want) {
						b.Fatalf("%d: %d %.200s", which, rec.Code, rec.Body)
					}
				}
				var body []byte
				start := time.Now()
				if err := user.QueryRow(b.Context(), w.sql, w.argument(number)).Scan(&body); err != nil {
					b.Fatal(err)
				}
				took[2] += time.Since(start)
			}
			b.ReportMetric(float64(took[0])/float64(took[1]), "ratio")
			b.ReportMetric(float64(took[2])/float64(took[1]), "bare")
			b.ReportMetric(float64(took[1].Microseconds())/float64(b.N), "µs/sluice")
		})
	}
}

// BenchmarkRowByKey compares one row by key, as the user under row level
// security, with a minimal handler: every client asks both in turn, so that they
// share the machine's moods, and ratio is the rate in relation to the minimal
// handler's (budget: 0.7). direct calls the handlers, http goes through loopback.
func BenchmarkRowByKey(b *testing.B) {
	s, asUser := benchStack(b)
	handlers := [2]http.Handler{works[0].minimal(benchPool(b, s, false)), asUser}
	b.Run("direct", func(b *testing.B) {
		drive(b, func(which int, path string) (int, string) {
			w := httptest.NewRecorder()
			handlers[which].ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			return w.Code, w.Body.String()
		})
	})
	b.Run("http", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchConns}}
		defer client.CloseIdleConnections()
		var base [2]string
		for i, h := range handlers {
			srv := httptest.NewServer(h)
			defer srv.Close()
			base[i] = srv.URL
		}
		drive(b, func(which int, path string) (int, string) {
			res, err := client.Get(base[which] + path)
			if err != nil {
				b.Error(err)
				return 0, ""
			}
			return res.StatusCode, drain(b, res)
		})
	})
}

// drive asks both handlers for rows: one client, whose ratio is that of the work,
// and benchConns at once, who also wait for one another.
func drive(b *testing.B, do func(which int, path string) (int, string)) {
	var n atomic.Int64
	pair := func(b *testing.B, took *[2]atomic.Int64) {
		id := n.Add(1)%10000 + 1
		for which := range took {
			start := time.Now()
			code, body := do(which, fmt.Sprintf("/bench_items?id=eq.%d", id))
			took[which].Add(int64(time.Since(start)))
			if code != http.StatusOK || !strings.HasPrefix(body, fmt.Sprintf(`[{"id":%d,`, id)) {
				b.Errorf("%d %s", code, body)
			}
		}
	}
	report := func(b *testing.B, took *[2]atomic.Int64) {
		b.ReportMetric(float64(took[0].Load())/float64(took[1].Load()), "ratio")
	}
	b.Run("one", func(b *testing.B) {
		var took [2]atomic.Int64
		for b.Loop() {
			pair(b, &took)
		}
		report(b, &took)
	})
	b.Run("many", func(b *testing.B) {
		var took [2]atomic.Int64
		b.SetParallelism(benchConns / 2)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				pair(b, &took)
			}
		})
		report(b, &took)
	})
}

// BenchmarkHalfLoad measures how long a row by its key takes at half of the rate that
// the server can do with benchConns clients: each request has its time, and waits
// count from there. The minimal handler is asked for the same, at half of its own
// rate: what its p99 is over its p50 is the machine's share, with the clients and the
// database on it. b.N is the number of requests; give some thousands.
func BenchmarkHalfLoad(b *testing.B) {
	s, asUser := benchStack(b)
	for _, h := range []struct {
		name    string
		handler http.Handler
	}{{"minimal", works[0].minimal(benchPool(b, s, false))}, {"sluice", asUser}} {
		b.Run(h.name, func(b *testing.B) { halfLoad(b, h.handler) })
	}
}

func halfLoad(b *testing.B, h http.Handler) {
	srv := httptest.NewServer(h)
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4 * benchConns}}
	defer client.CloseIdleConnections()
	var n atomic.Int64
	ask := func() {
		res, err := client.Get(fmt.Sprintf("%s/bench_items?id=eq.%d", srv.URL, n.Add(1)%10000+1))
		if err != nil {
			b.Error(err)
			return
		}
		if body := drain(b, res); res.StatusCode != http.StatusOK {
			b.Errorf("%d %s", res.StatusCode, body)
		}
	}
	inAll := func(total, clients int, do func(i int)) time.Duration {
		var next atomic.Int64
		var all sync.WaitGroup
		start := time.Now()
		for range clients {
			all.Go(func() {
				for i := next.Add(1) - 1; i < int64(total); i = next.Add(1) - 1 {
					do(int(i))
				}
			})
		}
		all.Wait()
		return time.Since(start)
	}
	inAll(500, benchConns, func(int) { ask() }) // plans and connections
	full := 2000 / inAll(2000, benchConns, func(int) { ask() }).Seconds()
	every := time.Duration(float64(time.Second) / (full / 2))
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	start := time.Now()
	inAll(b.N, 4*benchConns, func(i int) {
		due := start.Add(time.Duration(i) * every)
		time.Sleep(time.Until(due))
		ask()
		took[i] = time.Since(due)
	})
	b.StopTimer()
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	b.ReportMetric(full, "full-req/s")
	b.ReportMetric(float64(p50.Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(p99)/float64(p50), "p99/p50")
}
