package realtime_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/cluster"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// Every embedded statement is one that PostgreSQL accepts.
func TestStatements(t *testing.T) {
	t.Parallel()
	conn, err := pgtest.New(t).Admin().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	files, err := filepath.Glob("sql/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Conn().Prepare(t.Context(), file, string(text)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// pool opens a pool with few connections.
func pool(t *testing.T, db *pgtest.DB, conns int32) *pg.Pool {
	t.Helper()
	p, err := pg.Open(t.Context(), pg.Config{URL: db.URL("authenticator"), MaxConns: conns, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// single posts one private broadcast as the token's user and returns the answer.
func (w *world) single(tok, topic string) string {
	w.t.Helper()
	claims, err := fakeTokens{}.Verify(tok)
	if err != nil {
		w.t.Fatal(err)
	}
	rec := w.post(&sluice.Identity{Claims: claims}, "/api/broadcast/"+topic+"/events/e?private=true", "application/json", `{"a":1}`)
	return strings.TrimSpace(fmt.Sprint(rec.Code, " ", rec.Body))
}

// Whatever keeps a check from being decided is a no with a reason of its own,
// over the socket and over HTTP.
// spec: realtime:54 realtime:125 realtime:135 pgchanges:139
func TestUndecided(t *testing.T) {
	for _, tt := range []struct {
		name, sql    string
		role         string
		change       func(*realtime.Config)
		reason, http string
	}{
		{name: "allowed", http: "202"},
		{name: "denied", role: "anon", reason: "Unauthorized: " + noRead("room"), http: `403 {"message":"Unauthorized"}`},
		{name: "unknown role", role: "nobody", reason: "Unauthorized: " + noRead("room"), http: `422 {"message":"RLS policy error"}`},
		{name: "no role", role: "none", reason: "Unauthorized: " + noRead("room"), http: `422 {"message":"RLS policy error"}`},
		{
			name: "policy raises", sql: `create policy boom on realtime.messages as restrictive using (1 / (length(topic) - length(topic)) = 1)`,
			reason: "Unauthorized: " + noRead("room"), http: `422 {"message":"RLS policy error"}`,
		},
		{
			name: "statement timeout", sql: `create policy slow on realtime.messages as restrictive using (pg_sleep(60) is null)`,
			change: func(cfg *realtime.Config) { cfg.PolicyTimeout = 50 * time.Millisecond },
			reason: "QueryCanceled: canceling statement due to statement timeout", http: `422 {"message":"Query canceled"}`,
		},
		{name: "no partition, made", sql: noPartitions, http: "202"},
		{
			name: "no partition, and none can be made", sql: noPartitions + `; drop function sluice.make_message_partitions`,
			reason: "MissingPartition: Realtime was unable to find the expected messages partition", http: `422 {"message":"Missing messages partition"}`,
		},
		{
			name: "no partition, no right to make it", sql: noPartitions, change: func(cfg *realtime.Config) { cfg.Admin = nil },
			reason: "MissingPartition: Realtime was unable to find the expected messages partition", http: `422 {"message":"Missing messages partition"}`,
		},
		{
			name: "connections used up", sql: "do $$ begin execute format('alter database %I connection limit 0', current_database()); end $$",
			reason: "DatabaseLackOfConnections: Database can't accept more connections, Realtime won't connect",
			http:   `422 {"message":"Tenant database has too many connections"}`,
		},
		{
			name: "no database", change: func(cfg *realtime.Config) { cfg.Users = unreachable(t) },
			reason: "UnableToConnectToProject: Realtime was unable to connect to the project database",
			http:   `422 {"message":"Tenant database unavailable"}`,
		},
		{
			name: "the connection ends meanwhile", sql: `
create function public.end_it() returns boolean language sql security definer as $$ select pg_terminate_backend(pg_backend_pid()) and pg_sleep(60) is null $$;
create policy boom on realtime.messages as restrictive using (public.end_it())`,
			reason: "UnableToConnectToProject: Realtime was unable to connect to the project database",
			http:   `422 {"message":"Tenant database unavailable"}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(openPolicies)
			var changes []func(*realtime.Config)
			if tt.change != nil {
				changes = append(changes, tt.change)
			}
			if tt.role == "" {
				tt.role = "authenticated"
			}
			tok := mayAs(tt.role, "b", "b")
			for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
				if tt.sql != "" && v == phoenix.V1 || tt.sql == noPartitions {
					db.Exec(tt.sql)
				}
				w := realWorld(t, db, changes...)
				c := w.connect(v)
				c.join("realtime:room", private(tok))
				if tt.reason == "" {
					c.expect(joinedReply)
				} else {
					c.expect(refusedReply(tt.reason))
				}
				c.quiet()
			}
			if tt.sql == noPartitions {
				db.Exec(tt.sql)
			}
			if got := realWorld(t, db, changes...).single(tok, "room"); got != tt.http {
				t.Errorf("HTTP: %s, want %s", got, tt.http)
			}
		})
	}
	t.Run("connections and queue are full", poolExhausted)
}

// noPartitions drops the partitions of realtime.messages.
const noPartitions = `do $$
declare p regclass;
begin
  for p in select inhrelid::regclass from pg_inherits where inhparent = 'realtime.messages'::regclass loop
    execute 'drop table ' || p;
  end loop;
end $$`

// unreachable is a pool of a server that is not there.
func unreachable(t *testing.T) *pg.Pool {
	t.Helper()
	p, err := pg.Open(t.Context(), pg.Config{URL: "postgres://u@127.0.0.1:1/db?sslmode=disable", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// blocking makes policies that wait as long as the test holds a lock.
const blocking = `
create function public.wait() returns boolean language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(42); return true; end $$;
create policy wait_to_read on realtime.messages as restrictive for select using (realtime.topic() not like 'slow%' or public.wait());
create policy wait_to_write on realtime.messages as restrictive for insert with check (realtime.topic() not like 'slow%' or public.wait());`

// lock blocks the policies until unlock is called; blocked waits until n checks
// are blocked.
func lock(t *testing.T, db *pgtest.DB) (unlock func(), blocked func(n int)) {
	t.Helper()
	conn, err := db.Admin().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exec := func(sql string) {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Error(err)
		}
	}
	exec("select pg_advisory_lock(42)")
	unlock = sync.OnceFunc(func() { exec("select pg_advisory_unlock(42)"); conn.Release() })
	t.Cleanup(unlock)
	return unlock, func(n int) {
		t.Helper()
		const sql = `select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())`
		for deadline, got := time.Now().Add(10*time.Second), -1; got != n; {
			if err := db.Admin().QueryRow(t.Context(), sql).Scan(&got); err != nil || time.Now().After(deadline) {
				t.Fatalf("%d checks are blocked, want %d: %v", got, n, err)
			}
		}
	}
}

// patient waits for policies for as long as a test takes.
func patient(cfg *realtime.Config) { cfg.PolicyTimeout, cfg.JoinTimeout = time.Minute, time.Minute }

// busy is a server whose one connection for checks is taken, and whose queue
// holds one more.
func busy(t *testing.T, sql string) (w *world, first, second *client, unlock func()) {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(sql)
	w = realWorld(t, db, patient, func(cfg *realtime.Config) {
		cfg.Users, cfg.MaxPolicyChecks = pool(t, db, 1), 1
	})
	unlock, blocked := lock(t, db)
	first, second = w.connect(phoenix.V2), w.connect(phoenix.V2)
	first.join("realtime:slow1", private(may("b", "b")))
	blocked(1)
	second.join("realtime:slow2", private(may("b", "b")))
	second.quiet() // it waits in the queue by now
	return w, first, second, unlock
}

// With all connections busy and the queue full, who comes is told at once; the
// queue is what opens the circuit, and closes it as soon as there is room.
func poolExhausted(t *testing.T) {
	t.Parallel()
	w, first, second, unlock := busy(t, openPolicies+blocking)
	c := w.connect(phoenix.V1)
	c.join("realtime:room", private(may("b", "b")))
	c.expect(refusedReply("IncreaseConnectionPool: Please increase your connection pool size"))
	if got, want := w.single(may("b", "b"), "room"), `429 {"message":"Connection pool exhausted"}`; got != want {
		t.Errorf("HTTP: %s, want %s", got, want)
	}
	unlock()
	first.expect(joinedReply)
	second.expect(joinedReply)
	c.open("realtime:room", private(may("b", "b")))
	if got := w.single(may("b", "b"), "room"); got != "202" {
		t.Errorf("HTTP: %s", got)
	}
}

// Who has waited in the queue until the time was up is told the same.
func TestWaitedTooLong(t *testing.T) {
	t.Parallel()
	srv, err := realtime.New(realtime.Config{ // not run: nobody takes a check
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Tokens: fakeTokens{}, Bus: cluster.NewLocal(cluster.Handlers{}), Users: unreachable(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if may, refusal := srv.Rights(ctx, anon.Claims, "room", false); refusal == nil || refusal.Code != sluice.CodePoolExhausted || may[0] {
		t.Errorf("got %v %v", may, refusal)
	}
}

// Policies that take long do not hold up who leaves meanwhile, nor the socket's
// other channels.
func TestLeaveWhilePoliciesAreAsked(t *testing.T) {
	t.Parallel()
	_, first, _, unlock := busy(t, openPolicies+blocking)
	first.open("realtime:public", emptyJoin)
	first.push("1", "realtime:slow1", "phx_leave", `{}`)
	first.expect(refusedReply("InitializingProjectConnection: Realtime is initializing the project connection"), okReply)
	unlock()
}

// A send whose check finds no room is dropped, without the log line of a database
// that failed; a policy that raises an error drops it, too, and is logged. The
// channel stays.
// spec: realtime:88
func TestWriteUndecided(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(openPolicies + blocking + `
create function public.boom() returns boolean language plpgsql as $$ begin raise exception 'boom'; end $$;
create policy boom on realtime.messages as restrictive for insert with check (realtime.topic() <> 'boom' or public.boom());`)
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		w := realWorld(t, db, patient, func(cfg *realtime.Config) {
			cfg.Users, cfg.MaxPolicyChecks = pool(t, db, 1), 1
		})
		c, other := w.connect(v), w.connect(v)
		c.open("realtime:room", private(may("b", "b"), "ack"))
		c.open("realtime:boom", private(may("b", "b"), "ack"))
		other.open("realtime:boom", private(may("b", "b"), "ack"))
		for range 50 { // asked once within a second
			c.push(nil, "realtime:boom", "broadcast", `{}`)
		}
		c.fence("realtime:boom")
		if n := w.logs.count("code=RlsPolicyError"); n < 1 || n > 25 {
			t.Errorf("RlsPolicyError is logged %d times", n)
		}

		unlock, blocked := lock(t, db)
		a, b := w.connect(v), w.connect(v)
		a.join("realtime:slow1", private(may("b", "b")))
		blocked(1)
		b.join("realtime:slow2", private(may("b", "b")))
		b.quiet()
		c.push(nil, "realtime:room", "broadcast", `{}`)
		c.fence("realtime:room")
		if w.logs.count("code=UnableToSetPolicies") != 0 || w.logs.count("code=IncreaseConnectionPool") != 1 {
			t.Error("the full queue is not logged as such")
		}
		other.quiet()
		unlock()
		a.expect(joinedReply)
		b.expect(joinedReply)
		if n := w.srv.Metrics().Broadcasts.Load(); n != 0 {
			t.Errorf("%d broadcasts went out", n)
		}
	}
}

// Many users who join one topic at once are asked in few flushes, and each gets
// an answer of his own.
func TestManyJoinAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(openPolicies + blocking)
	w := realWorld(t, db, patient, func(cfg *realtime.Config) { cfg.Users = pool(t, db, 1) })
	unlock, blocked := lock(t, db)
	first := w.connect(phoenix.V2)
	first.open("realtime:room", private(may("b", "b"), "ack"))
	first.join("realtime:slow", private(may("b", "b")))
	blocked(1)
	clients := make([]*client, 100)
	for i := range clients {
		clients[i] = w.connect(phoenix.V2)
		clients[i].join("realtime:room", private(may([]string{"b", "", "b"}[i%3], "b")))
		clients[i].quiet()
	}
	before := w.srv.Metrics().PolicyFlushes.Load()
	unlock()
	first.expect(joinedReply)
	for i, c := range clients {
		if i%3 == 1 {
			c.expect(refusedReply("Unauthorized: " + noRead("room")))
		} else {
			c.expect(joinedReply)
		}
	}
	first.push(nil, "realtime:room", "broadcast", `{}`)
	first.expect(okReply)
	for i, c := range clients {
		if i%3 != 1 {
			c.expect(`broadcast {}`)
		}
		c.quiet()
	}
	if n := w.srv.Metrics().PolicyFlushes.Load() - before; n > 50 { // at best 4, and one for the first send
		t.Errorf("%d flushes for 100 joins", n)
	}
}
