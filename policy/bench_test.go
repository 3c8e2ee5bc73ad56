package policy_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

const benchSQL = `
create table public.members (room_id int, user_id uuid, primary key (room_id, user_id));
create table public.t (id int primary key, room_id int, user_id uuid, body text);
alter table public.t enable row level security;
grant select on public.t, public.members to authenticated;
insert into public.members select i % 1000, ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid from generate_series(0, 9999) i;
analyze public.members;
`

func benchUser(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// benchPlan compiles a policy and binds users to it.
func benchPlan(b *testing.B, using string, users int) (*policy.Plan, []*policy.Bound, *pg.Pool) {
	b.Helper()
	db := pgtest.New(b)
	admin := db.Pool("supabase_admin")
	if _, err := admin.Exec(b.Context(), benchSQL+"create policy p on public.t for select using ("+using+")"); err != nil {
		b.Fatal(err)
	}
	table := &policy.Table{Schema: "public", Name: "t", Alias: "t", Columns: []string{"id", "room_id", "user_id", "body"}}
	var oid uint32
	if err := admin.QueryRow(b.Context(), "select 'public.t'::regclass::oid").Scan(&oid); err != nil {
		b.Fatal(err)
	}
	plan, err := policy.Compile(b.Context(), admin, policy.Input{Table: table, Guard: oid, Role: "authenticated", SearchPath: "public"})
	if err != nil {
		b.Fatal(err)
	}
	var bound []*policy.Bound
	for i := range users {
		c := sluice.Claims{Role: "authenticated", Subject: benchUser(i)}
		c.JSON, _ = json.Marshal(map[string]any{"role": "authenticated", "sub": c.Subject, "app_metadata": map[string]any{"teams": []string{"a", "b"}}})
		bound = append(bound, plan.Bind(c))
	}
	return plan, bound, admin
}

func benchRow(i int) []sluice.Value {
	v := func(s string) sluice.Value { return sluice.Value{Kind: sluice.ValueText, Text: []byte(s)} }
	return []sluice.Value{v(fmt.Sprint(i)), v(fmt.Sprint(i % 1000)), v(benchUser(i)), v("hello")}
}

// BenchmarkPredicate is the rate at which tier 1 decides pairs of a row and
// somebody who asks, on one core, nothing skipped by an index.
func BenchmarkPredicate(b *testing.B) {
	for name, using := range map[string]string{
		"owner":  "auth.uid() = user_id",
		"public": "body = 'x' or room_id > 2000 or user_id = (select auth.uid())",
	} {
		b.Run(name, func(b *testing.B) {
			plan, bound, _ := benchPlan(b, using, 1000)
			if plan.Tier != policy.TierPredicate {
				b.Fatal(plan.Tier)
			}
			row := plan.Row(benchRow(7))
			judge, seen := plan.Judge(), 0
			for b.Loop() {
				for _, who := range bound {
					if judge.See(who, &row) == policy.Yes {
						seen++
					}
				}
			}
			if seen != b.N {
				b.Fatalf("%d of %d", seen, b.N)
			}
			b.ReportMetric(float64(b.N)*float64(len(bound))/b.Elapsed().Seconds(), "pairs/s")
		})
	}
}

// BenchmarkSet is the rate of tier 2: a batch of rows in one statement.
func BenchmarkSet(b *testing.B) {
	const member = "exists (select 1 from members m where m.room_id = t.room_id and m.user_id = auth.uid())"
	for _, tt := range []struct {
		name, using string
		rows, users int
		closed      bool
	}{
		{"member/rows=1/users=500", member, 1, 500, false},
		{"member/rows=100/users=500", member, 100, 500, false},
		{"member/rows=1/users=10000", member, 1, 10000, false},
		{"member/rows=100/users=10000", member, 100, 10000, false},
		{"member-or-own/rows=100/users=10000", "user_id = auth.uid() or " + member, 100, 10000, false},
		{"in/rows=100/users=10000", "room_id in (select room_id from members where user_id = (select auth.uid()))", 100, 10000, false},
		{"member/closed/rows=100/users=500", member, 100, 500, true},
		{"member/closed/rows=100/users=10000", member, 100, 10000, true},
		{"not-member/rows=100/users=500", "not " + member, 100, 500, false},
	} {
		b.Run(tt.name, func(b *testing.B) {
			plan, bound, admin := benchPlan(b, tt.using, tt.users)
			if plan.Tier != policy.TierSet {
				b.Fatal(plan.Tier, plan.Why)
			}
			list := []byte{'{'}
			for i := range tt.rows {
				if i > 0 {
					list = append(list, ',')
				}
				var values [][]byte
				for _, v := range benchRow(i) {
					values = append(values, v.Text)
				}
				list = policy.AppendRow(list, values)
			}
			list = append(list, '}')
			c, err := admin.Acquire(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Release()
			pairs := 0
			for b.Loop() {
				sql, args := plan.OpenSQL, [][]byte{list, []byte("100000")}
				if sql == "" || tt.closed {
					sql, args = plan.SQL, plan.SetArgs(list, bound)
				}
				res := c.Conn().PgConn().ExecParams(b.Context(), sql, args, nil, nil, nil).Read()
				if res.Err != nil {
					b.Fatal(res.Err)
				}
				pairs = len(res.Rows)
			}
			b.ReportMetric(float64(pairs), "seen")
			b.ReportMetric(float64(b.N)*float64(tt.rows)*float64(tt.users)/b.Elapsed().Seconds(), "pairs/s")
			b.ReportMetric(float64(b.N)*float64(tt.rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
