package rest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

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
// security, with a minimal handler (budget: 70% of its rate, so at most 1.43
// times its ns/op). direct calls the handlers, http goes through loopback.
func BenchmarkRowByKey(b *testing.B) {
	s := startWith(b, benchSQL, func(c *rest.Config) { c.Schemas = []string{"public"} })
	asUser := func(h http.Handler) http.Handler {
		id := sluice.Identity{Claims: sluice.Claims{Role: "authenticated", Subject: alice, JSON: json.RawMessage(benchClaims)}}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r.WithContext(sluice.WithIdentity(r.Context(), id)))
		})
	}
	for _, c := range []struct {
		name string
		h    http.Handler
	}{{"minimal", minimal(b, s)}, {"rest", asUser(s.server)}} {
		b.Run("direct/"+c.name, func(b *testing.B) {
			drive(b, func(r *http.Request) (int, string) {
				w := httptest.NewRecorder()
				c.h.ServeHTTP(w, r)
				return w.Code, w.Body.String()
			}, "")
		})
		b.Run("http/"+c.name, func(b *testing.B) {
			srv := httptest.NewServer(c.h)
			defer srv.Close()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchConns}}
			defer client.CloseIdleConnections()
			drive(b, func(r *http.Request) (int, string) {
				r.RequestURI = ""
				res, err := client.Do(r)
				if err != nil {
					b.Error(err)
					return 0, ""
				}
				return res.StatusCode, drain(b, res)
			}, srv.URL)
		})
	}
}

// drive asks for rows from benchConns clients at once and checks each answer.
func drive(b *testing.B, do func(*http.Request) (int, string), base string) {
	var n atomic.Int64
	b.SetParallelism(benchConns / 2)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := n.Add(1)%10000 + 1
			r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, base+"/bench_items?id=eq."+fmt.Sprint(id), nil)
			code, body := do(r)
			if code != http.StatusOK || !strings.HasPrefix(body, fmt.Sprintf(`[{"id":%d,`, id)) {
				b.Fatalf("%d %s", code, body)
			}
		}
	})
}
