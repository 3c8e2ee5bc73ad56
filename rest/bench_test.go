package rest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
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
alter table public.bench_items enable row level security;
create policy bench_owner on public.bench_items for select to authenticated
  using (owner = (select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid));`

const benchClaims = `{"sub":"` + alice + `","role":"authenticated"}`

// benchConns is the size of both pools and the number of clients.
const benchConns = 8

// minimal is the least that a handler can do: the row as JSON, in a transaction
// with role and claims, in one round trip with prepared statements.
func minimal(b *testing.B, s *stack) http.Handler {
	b.Helper()
	cfg, err := pgxpool.ParseConfig(string(s.URL("authenticator")))
	if err != nil {
		b.Fatal(err)
	}
	cfg.MaxConns = benchConns
	// What the login may not read cannot be described before the role is set.
	s.Exec("grant select on public.bench_items to authenticator")
	pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, _ := strings.CutPrefix(r.URL.Query().Get("id"), "eq.")
		id, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			http.Error(w, "want id=eq.N", http.StatusBadRequest)
			return
		}
		var body []byte
		var batch pgx.Batch
		batch.Queue("begin read only")
		batch.Queue("select set_config('role', 'authenticated', true), set_config('request.jwt.claims', $1, true)", benchClaims)
		batch.Queue("select coalesce(json_agg(t), '[]')::text from (select * from public.bench_items where id = $1) t", id).
			QueryRow(func(row pgx.Row) error { return row.Scan(&body) })
		batch.Queue("commit")
		if err := pool.SendBatch(r.Context(), &batch).Close(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write(body)
	})
}

// BenchmarkRowByKey compares one row by key, as the user under row level
// security, with a minimal handler: every client asks both in turn, so that they
// share the machine's moods, and ratio is the rate in relation to the minimal
// handler's (budget: 0.7). direct calls the handlers, http goes through loopback.
func BenchmarkRowByKey(b *testing.B) {
	s := startWith(b, benchSQL, func(c *rest.Config) { c.Schemas = []string{"public"} })
	id := sluice.Identity{Claims: sluice.Claims{Role: "authenticated", Subject: alice, JSON: json.RawMessage(benchClaims)}}
	asUser := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.server.ServeHTTP(w, r.WithContext(sluice.WithIdentity(r.Context(), id)))
	})
	handlers := [2]http.Handler{minimal(b, s), asUser}
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
