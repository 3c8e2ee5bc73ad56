package changes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

const chat = `
create table public.members (room int, user_id uuid, primary key (room, user_id));
alter table public.members enable row level security;
create policy own on public.members for select to authenticated using (user_id = (select auth.uid()));
create table public.messages (id int primary key, room int not null, author uuid, body text);
alter table public.messages enable row level security;
create policy read on public.messages for select to authenticated
  using (exists (select 1 from public.members m where m.room = messages.room and m.user_id = auth.uid()));
alter publication supabase_realtime add table public.messages;`

const allMessages = `{"event":"INSERT","schema":"public","table":"messages"}`

// visible returns the ids that a user's own select returns, in order.
func visible(t *testing.T, p *pg.Pool, c sluice.Claims) []int {
	t.Helper()
	out := []int{}
	err := p.As(t.Context(), c, pg.AsOptions{}, func(ctx context.Context, tx pg.Tx) error {
		rows, err := tx.Query(ctx, "select id from public.messages where id < 1000000 order by id")
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// 1,000 rows from four writers, 20 users: each receives exactly what its own
// select returns, in commit order, none twice.
func TestEachUserReceivesWhatSelectReturns(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", chat)
	f := newFeed(t, db)
	const users, rooms, writers, each = 20, 7, 4, 250
	for u := range users {
		for room := range rooms {
			if (u+room)%3 == 0 {
				db.Exec("insert into public.members values ($1, $2)", room, user(u))
			}
		}
		// A member of all rooms tells when everything has come.
		db.Exec("insert into public.members values ($1, $2) on conflict do nothing", 99, user(u))
	}
	listeners := make([]*listener, users)
	for u := range listeners {
		listeners[u] = f.listen(t, claimsOf("authenticated", user(u)), allMessages)
	}
	nobody := f.listen(t, claimsOf("anon", ""), allMessages)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			conn, err := pgx.Connect(context.Background(), string(db.URL("postgres")))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(context.Background())
			for i := range each {
				if _, err := conn.Exec(context.Background(), "insert into public.messages values ($1, $2, $3, 'x')", w*each+i, rand.IntN(rooms), user(w)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	db.Exec("insert into public.messages values (1000000, 99, null, 'end')")
	users0 := db.Pool("authenticator")
	for u, l := range listeners {
		want := visible(t, users0, claimsOf("authenticated", user(u)))
		got := ids(l.wait(len(want) + 1))
		if got[len(got)-1] != 1000000 {
			t.Errorf("user %d: the last event is not the last row", u)
		}
		got = got[:len(got)-1]
		for w := range writers {
			mine := slices.DeleteFunc(slices.Clone(got), func(id int) bool { return id/each != w })
			if !slices.IsSorted(mine) {
				t.Errorf("user %d: rows of writer %d came out of order", u, w)
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("user %d: %s", u, d)
		}
	}
	if n := len(nobody.got()); n != 0 {
		t.Errorf("anon received %d events", n)
	}
}

// Memberships change between messages. Every message carries, in its body, who
// was a member when it was committed; a membership may change again before the
// decision, so that only users whose membership is the same before and after
// must agree.
func TestMembershipsThatChange(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", chat)
	f := newFeed(t, db)
	const users, steps = 5, 200
	listeners := make([]*listener, users)
	member := make([]bool, users)
	for u := range listeners {
		db.Exec("insert into public.members values (99, $1)", user(u))
		listeners[u] = f.listen(t, claimsOf("authenticated", user(u)), allMessages)
	}
	want := make([][]int, users)
	for i := range steps {
		// One membership flips together with the message; then everybody catches
		// up, so that the decision is made under these memberships.
		u := rand.IntN(users)
		member[u] = !member[u]
		change := "insert into public.members values (1, $1)"
		if !member[u] {
			change = "delete from public.members where room = 1 and user_id = $1"
		}
		err := pgx.BeginFunc(t.Context(), db.Admin(), func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), change, user(u)); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), "insert into public.messages values ($1, 1, null, '')", i)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		db.Exec("insert into public.messages values ($1, 99, null, '')", 1000000+i)
		for u, l := range listeners {
			if member[u] {
				want[u] = append(want[u], i)
			}
			want[u] = append(want[u], 1000000+i)
			if d := cmp.Diff(want[u], ids(l.wait(len(want[u])))); d != "" {
				t.Fatalf("step %d, user %d: %s", i, u, d)
			}
		}
	}
}

// A membership and a message in one transaction: the commit must be visible when
// the policy is asked. SLUICE_TEST_LONG=100000 runs as many.
func TestMembershipAndMessageInOneTransaction(t *testing.T) {
	t.Parallel()
	n := long(2000)
	db := pgtest.New(t)
	db.ExecAs("postgres", chat)
	f := newFeed(t, db)
	l := f.listen(t, claimsOf("authenticated", user(1)), allMessages)
	inParallel(t, db, n, func(conn *pgx.Conn, i int) error {
		b := &pgx.Batch{}
		b.Queue("insert into public.members values ($1, $2)", i, user(1))
		b.Queue("insert into public.messages values ($1, $1, null, '')", i)
		return conn.SendBatch(context.Background(), b).Close()
	})
	got := ids(l.wait(n))
	slices.Sort(got)
	for i, id := range got {
		if i != id {
			t.Fatalf("message %d is missing or came twice", i)
		}
	}
	t.Logf("%d transactions, %d waits for visibility", n, f.Metrics().VisibleRetries.Load())
}

// inParallel does the work 0 to n-1 over four connections as postgres.
func inParallel(t *testing.T, db *pgtest.DB, n int, do func(conn *pgx.Conn, i int) error) {
	t.Helper()
	const connections = 4
	var wg sync.WaitGroup
	for w := range connections {
		wg.Go(func() {
			conn, err := pgx.Connect(context.Background(), string(db.URL("postgres")))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(context.Background())
			for i := w; i < n; i += connections {
				if err := do(conn, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// long is n, or what SLUICE_TEST_LONG says.
func long(n int) int {
	if s := os.Getenv("SLUICE_TEST_LONG"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	return n
}

// A row that is written the moment a subscription stands arrives, under a policy
// of every tier. SLUICE_TEST_LONG=10000 runs as many.
func TestSubscribeThenWriteAtOnce(t *testing.T) {
	t.Parallel()
	n := long(400)
	db := pgtest.New(t)
	db.Exec("create table public.members (room int, user_id uuid); grant select on public.members to authenticated")
	db.Exec("insert into public.members values (1, $1)", user(1))
	for tier, using := range []string{
		"true", "owner = auth.uid()", "room in (select room from public.members where user_id = auth.uid())", "current_user <> 'x' and owner = auth.uid()",
	} {
		db.Exec(fmt.Sprintf(`create table public.t%d (id int primary key, room int, owner uuid);
			alter table public.t%[1]d enable row level security; create policy p on public.t%[1]d using (%s);
			grant select on public.t%[1]d to authenticated; grant insert on public.t%[1]d to postgres; alter table public.t%[1]d owner to postgres;
			alter publication supabase_realtime add table public.t%[1]d`, tier, using))
	}
	f := newFeed(t, db)
	inParallel(t, db, n, func(conn *pgx.Conn, i int) error {
		table := fmt.Sprintf("t%d", i%4)
		got := make(chan struct{}, 1)
		sub, _, err := f.Subscribe(t.Context(), sluice.ChangeSubscription{
			Claims: claimsOf("authenticated", user(1)), Topic: "t",
			Bindings: []sluice.ChangeBinding{{ID: 1, Params: json.RawMessage(fmt.Sprintf(`{"event":"INSERT","schema":"public","table":%q,"filter":"id=eq.%d"}`, table, i))}},
			Deliver:  func(sluice.ChangeEvent) { got <- struct{}{} },
		})
		if err != nil {
			return err
		}
		defer sub.Close()
		if _, err := conn.Exec(context.Background(), "insert into public."+table+" values ($1, 1, $2)", i, user(1)); err != nil {
			return err
		}
		select {
		case <-got:
			return nil
		case <-time.After(30 * time.Second):
			return fmt.Errorf("row %d of %s did not arrive", i, table)
		}
	})
	if got := tiers(f); !got[policy.TierPredicate] || !got[policy.TierSet] || !got[policy.TierUser] {
		t.Errorf("tiers %v", got)
	}
}
