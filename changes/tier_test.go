package changes_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

// tierDB is a table of rooms' messages with a policy.
func tierDB(t *testing.T, using string) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(`create table public.members (room int, user_id uuid);
		create table public.t (id int primary key, room int, owner uuid, a text);
		alter table public.t enable row level security;
		grant select on public.t, public.members to anon, authenticated;
		alter publication supabase_realtime add table public.t;
		create function public.member(r int) returns boolean language sql stable security definer set search_path = '' as
		  $$ select exists (select from public.members m where m.room = r and m.user_id = auth.uid()) $$`)
	db.Exec("create policy p on public.t for select using (" + using + ")")
	return db
}

func tiers(f *feed) (out [4]bool) {
	for i := range out {
		out[i] = f.Metrics().Tiers[i].Load() > 0
	}
	return out
}

// Each tier decides who receives what.
func TestTiersDecide(t *testing.T) {
	t.Parallel()
	for using, tier := range map[string]policy.Tier{
		"owner = auth.uid()":                       policy.TierPredicate,
		"a = 'all' or owner = (select auth.uid())": policy.TierPredicate,
		"public.member(room)":                      policy.TierSet,
		"room in (select room from public.members where user_id = auth.uid()) or a = 'all'": policy.TierSet,
		"not public.member(room + 1)":                policy.TierSet,
		"current_user <> 'x' and owner = auth.uid()": policy.TierUser,
	} {
		t.Run(using, func(t *testing.T) {
			t.Parallel()
			db := tierDB(t, using)
			db.Exec("insert into public.members select i, $1::uuid from generate_series(1, 2) i union all values (2, $2::uuid)", user(1), user(2))
			db.Exec("alter table public.t replica identity full")
			db.Exec("create table public.judged (like public.t); alter table public.judged enable row level security; grant select on public.judged to anon, authenticated")
			db.Exec("create policy p on public.judged for select using (" + using + ")")
			f := newFeed(t, db)
			var who []*listener
			for i := range 4 {
				who = append(who, f.listen(t, authenticated(i), anonT))
			}
			anon := f.listen(t, claimsOf("anon", ""), anonT)
			end := f.listen(t, claimsOf("service_role", ""), anonT)
			n := 0
			for room := range 4 {
				for owner := range 4 {
					n++
					db.Exec("insert into public.t values ($1, $2, $3, case $1 % 5 when 0 then 'all' end)", n, room, user(owner))
				}
			}
			db.Exec("update public.t set a = coalesce(a, '') || '!' where id % 2 = 0; delete from public.t where id % 3 = 0")
			got := end.wait(16 + 8 + 5)
			if len(got) != 29 {
				t.Fatalf("%d changes", len(got))
			}
			for i, e := range got {
				for k, image := range []map[string]any{e.Data.Record, e.Data.OldRecord} {
					if image != nil {
						db.Exec("insert into public.judged values ($1, $2, $3, $4)", 2*i+k, image["room"], image["owner"], image["a"])
					}
				}
			}
			for i, l := range append(who, anon) {
				claims := claimsOf("anon", "")
				if i < len(who) {
					claims = authenticated(i)
				}
				want := expected(t, db, claims, got)
				if d := cmp.Diff(want, append([]string{}, summary(l.wait(len(want)))...)); d != "" {
					t.Errorf("%d: %s", i, d)
				}
			}
			if got := tiers(f); !got[tier] || tier != policy.TierUser && got[policy.TierUser] {
				t.Errorf("tiers %v, want %s", got, tier)
			}
		})
	}
}

// expected lets PostgreSQL judge the images that service_role has received: image
// 2i is the new row of event i, 2i+1 the old.
func expected(t *testing.T, db *pgtest.DB, claims sluice.Claims, all []event) []string {
	t.Helper()
	seen := map[int]bool{}
	err := db.Pool("authenticator").As(t.Context(), claims, pg.AsOptions{ReadOnly: true}, func(ctx context.Context, tx pg.Tx) error {
		rows, err := tx.Query(ctx, "select id from public.judged")
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		for _, id := range ids {
			seen[id] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for i, e := range all {
		switch {
		case e.Data.Type == "DELETE" && seen[2*i+1], e.Data.Type == "INSERT" && seen[2*i]:
		case e.Data.Type == "UPDATE" && seen[2*i]:
			if !seen[2*i+1] {
				e.Data.OldRecord = map[string]any{"id": e.Data.OldRecord["id"]}
			}
		default:
			continue
		}
		out = append(out, summary([]event{e})...)
	}
	return out
}

// Many more members than subscribers: the statement that does not say who asks
// would return them all.
func TestDenseMembership(t *testing.T) {
	t.Parallel()
	db := tierDB(t, "exists (select from public.members m where m.room = t.room and m.user_id = auth.uid())")
	db.Exec("insert into public.members select 1, ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid from generate_series(2, 25000) i")
	f := newFeed(t, db)
	one, two, three := f.listen(t, authenticated(1), anonT), f.listen(t, authenticated(2), anonT), f.listen(t, authenticated(3), anonT)
	for i := 1; i <= 3; i++ {
		db.Exec("insert into public.t values ($1, 1)", i)
		two.wait(i)
	}
	db.Exec("insert into public.members values (2, $1)", user(1))
	db.Exec("insert into public.t values (4, 2)")
	if d := cmp.Diff([]int{4}, ids(one.wait(1))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]int{1, 2, 3}, ids(three.wait(3))); d != "" {
		t.Error(d)
	}
	if f.Metrics().SetErrors.Load() != 0 || f.Metrics().Tiers[policy.TierUser].Load() != 0 {
		t.Error("somebody was asked as the user")
	}
}

// A function that a policy calls is replaced: what is compiled follows.
func TestFunctionChangesInOrder(t *testing.T) {
	t.Parallel()
	db := tierDB(t, "public.member(room)")
	f := newFeed(t, db)
	one := f.listen(t, authenticated(1), anonT)
	end := f.listen(t, claimsOf("service_role", ""), anonT)
	const replace = "create or replace function public.member(r int) returns boolean language sql stable as $$ select %s $$"
	for i, body := range []string{"r > 1", "auth.uid() is null", "true", "exists (select from public.members)", "not exists (select from public.members)"} {
		db.Exec(fmt.Sprintf(replace, body))
		db.Exec("insert into public.t values ($1, 1), ($2, 2)", 2*i, 2*i+1)
		end.wait(2*i + 2)
	}
	if d := cmp.Diff([]int{1, 4, 5, 8, 9}, ids(one.wait(5))); d != "" {
		t.Error(d)
	}
}

// An error in a set-based statement costs only the rows that raise it: they are
// asked about as the user.
func TestSetErrors(t *testing.T) {
	t.Parallel()
	db := tierDB(t, "exists (select from public.members m where m.room = t.room and m.user_id = auth.uid() and 10 / t.id > 0)")
	db.Exec("insert into public.members values (1, $1)", user(1))
	f := newFeed(t, db)
	one := f.listen(t, authenticated(1), anonT)
	end := f.listen(t, claimsOf("service_role", ""), anonT)
	db.Exec("insert into public.t select i, 1 from generate_series(-1, 5) i")
	end.wait(7)
	if d := cmp.Diff([]int{1, 2, 3, 4, 5}, ids(one.wait(5))); d != "" {
		t.Error(d)
	}
	if f.Metrics().SetErrors.Load() == 0 {
		t.Error("no error was counted")
	}
}

// Verification finds what is compiled and does not hold any more, before anything
// is sent.
func TestVerify(t *testing.T) {
	t.Parallel()
	db := tierDB(t, "public.member(room)")
	db.Exec(`create or replace function public.member(r int) returns boolean language sql stable as $$ select r > 0 $$`)
	f := newFeed(t, db, func(c *changes.Config) { c.Verify, c.FingerprintEvery = 1, time.Hour })
	one := f.listen(t, authenticated(1), anonT)
	db.Exec("insert into public.t values (1, 1)")
	one.wait(1)
	if f.Metrics().Disagreements.Load() != 0 {
		t.Fatal("a disagreement without a reason")
	}
	// Behind the back of the event triggers.
	db.Exec(`alter event trigger sluice_ddl_command_end disable;
		create or replace function public.member(r int) returns boolean language sql stable as $$ select r > 2 $$;
		alter event trigger sluice_ddl_command_end enable always`)
	db.Exec("insert into public.t values (2, 2), (3, 3)")
	if d := cmp.Diff([]int{1, 3}, ids(one.wait(2))); d != "" {
		t.Error(d)
	}
	if f.Metrics().Disagreements.Load() == 0 || !tiers(f)[policy.TierUser] {
		t.Error("nothing was found")
	}
}

// Subscribers whose claims no policy can ever let see a row are told so.
func TestToldThatNothingCanArrive(t *testing.T) {
	t.Parallel()
	db := tierDB(t, "auth.uid() = owner")
	f := newFeed(t, db)
	_, notices, err := f.tryListen(t, claimsOf("anon", ""), anonT)
	if err != nil || len(notices) != 1 || notices[0].Code != sluice.CodeNoPolicyForRole {
		t.Errorf("notices %v, %v", notices, err)
	}
	if _, notices, err = f.tryListen(t, authenticated(1), anonT); err != nil || len(notices) != 0 {
		t.Errorf("notices %v, %v", notices, err)
	}
}

// A filter finds its subscribers by the value, whatever its form.
func TestEqualityIndex(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, owner uuid, a text); alter table public.t replica identity full")
	db := f.db
	on := func(filter string) *listener {
		return f.listen(t, claimsOf("service_role", ""), `{"schema":"public","table":"t","filter":"`+filter+`"}`)
	}
	seven, upper, text, both := on("id=eq.07"), on("owner=eq."+strings.ToUpper(user(1))), on("a=eq.x y"), on("id=gt.6,a=eq.x y")
	not := on("id=not.eq.7")
	end := f.listen(t, claimsOf("service_role", ""), anonT)
	db.Exec("insert into public.t values (7, $1, 'x y'), (8, null, null), (9, $2, 'x y')", user(1), user(2))
	db.Exec("update public.t set a = 'z' where id = 7; delete from public.t where id = 7")
	end.wait(5)
	for i, tt := range []struct {
		l    *listener
		want []string
	}{
		{seven, []string{"INSERT", "UPDATE", "DELETE"}},
		{upper, []string{"INSERT", "UPDATE", "DELETE"}},
		{text, []string{"INSERT", "INSERT"}},
		{both, []string{"INSERT", "INSERT"}},
		{not, []string{"INSERT", "INSERT"}},
	} {
		var got []string
		for _, e := range tt.l.wait(len(tt.want)) {
			got = append(got, e.Data.Type)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%d: %v, want %v", i, got, tt.want)
		}
	}
}

// Rows are found by keys of every kind when a policy needs a column that the
// stream does not have (defect D5).
func TestKeysOfEveryKind(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("create extension citext with schema extensions")
	keys := []struct{ typ, value string }{
		{"char(3)", "'a'"},
		{"bit(3)", "B'101'"},
		{"varbit", "B'1'"},
		{"bytea", `'\x00ff'`},
		{"float8", "'NaN'"},
		{"numeric", "'NaN'"},
		{"float4", "0.1"},
		{"timestamptz", "'2026-01-02 03:04:05.678+09'"},
		{"interval", "'1 mon -2 days'"},
		{"text", `'a"b\c{,}'`},
		{"uuid", "gen_random_uuid()"},
		{"boolean", "true"},
		{"int[]", "'{1,2}'"},
		{"extensions.citext", "'Word'"},
		{"inet", "'10.0.0.1/8'"},
		{"date", "'infinity'"},
		{`"char"`, "'x'"},
		{"name", "'a name'"},
	}
	for i, k := range keys {
		db.Exec(fmt.Sprintf(`create table public.t%d (id %s primary key, seen bool);
			grant select on public.t%[1]d to anon; alter publication supabase_realtime add table public.t%[1]d (id);
			alter table public.t%[1]d enable row level security; create policy p on public.t%[1]d using (seen)`, i, k.typ))
	}
	f := newFeed(t, db)
	for i, k := range keys {
		l := f.listen(t, claimsOf("anon", ""), fmt.Sprintf(`{"schema":"public","table":"t%d"}`, i))
		db.Exec(fmt.Sprintf("insert into public.t%d values (%s, true)", i, k.value))
		if e := l.wait(1)[0]; e.Data.Record["id"] == nil && !strings.Contains(k.value, "NaN") {
			t.Errorf("%s: %s", k.typ, e.Raw)
		}
	}
}

// Who asks for it is told which rows leave what he sees, by the policies or by his
// filter, as a DELETE.
func TestLeft(t *testing.T) {
	t.Parallel()
	for using, tier := range map[string]policy.Tier{
		"true":                policy.TierConstant,
		"owner = auth.uid()":  policy.TierPredicate,
		"public.member(room)": policy.TierSet,
		"current_user <> 'x' and owner = auth.uid()": policy.TierUser,
	} {
		t.Run(using, func(t *testing.T) {
			t.Parallel()
			db := tierDB(t, using)
			db.Exec("insert into public.members values (1, $1), (2, $2)", user(1), user(2))
			db.Exec("alter table public.t replica identity full")
			f := newFeed(t, db)
			const left = `{"event":"*","schema":"public","table":"t","left":true}`
			one, plain := f.listen(t, authenticated(1), left), f.listen(t, authenticated(1), anonT)
			open := f.listen(t, authenticated(1), `{"event":"DELETE","schema":"public","table":"t","filter":"a=eq.open","left":true}`)
			two := f.listen(t, authenticated(2), left)
			end := f.listen(t, claimsOf("service_role", ""), anonT)
			mine, theirs := fmt.Sprintf("room = 1, owner = '%s'", user(1)), fmt.Sprintf("room = 2, owner = '%s'", user(2))
			db.Exec("insert into public.t values (1, 1, $1, 'open')", user(1))
			for _, set := range []string{"a = 'open'", theirs, mine, "a = 'shut'", "a = 'open', " + theirs} {
				db.Exec("update public.t set " + set)
			}
			db.Exec("delete from public.t")
			end.wait(7)
			kinds := func(l *listener, want ...string) {
				t.Helper()
				var got []string
				for _, e := range l.wait(len(want)) {
					k := e.Data.Type[:1]
					if strings.Contains(e.Raw, `"left":true`) {
						k += "!"
						if e.Data.OldRecord["room"] == nil {
							t.Errorf("the old row is not there: %s", e.Raw)
						}
					}
					got = append(got, k)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%q, want %q", got, want)
				}
			}
			if tier == policy.TierConstant {
				kinds(one, "I", "U", "U", "U", "U", "U", "D")
				kinds(open, "D!", "D")
				return
			}
			kinds(plain, "I", "U", "U", "U")
			kinds(one, "I", "U", "D!", "U", "U", "D!")
			kinds(open, "D!", "D!")
			kinds(two, "U", "D!", "U", "D")
			if !tiers(f)[tier] {
				t.Errorf("tiers %v, want %s", tiers(f), tier)
			}
		})
	}
}
