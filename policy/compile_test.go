package policy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

const shapesSQL = `
create type public.status as enum ('open', 'closed');
create table public.room_members (room_id int, user_id uuid, role text not null default 'member', primary key (room_id, user_id));
create table public.profiles (id uuid primary key, role text, org_id uuid);
create table public.rooms (id int primary key, owner uuid, is_open bool not null default false);
create table public.t (
  id int primary key, user_id uuid, other uuid, owner uuid, is_public bool, org_id uuid, email text, team_id text, team_no int,
  room_id int, status public.status, created_at timestamptz, kind varchar(20), tags text[]);
alter table public.t enable row level security;
insert into public.rooms values (1, '00000000-0000-4000-8000-000000000001', true), (2, '00000000-0000-4000-8000-000000000002', false), (3, null, false);
insert into public.room_members values (1, '00000000-0000-4000-8000-000000000001', 'member'), (1, '00000000-0000-4000-8000-000000000002', 'member'), (2, '00000000-0000-4000-8000-000000000002', 'admin'), (3, '00000000-0000-4000-8000-000000000001', 'admin');
insert into public.profiles values ('00000000-0000-4000-8000-000000000001', 'admin', '00000000-0000-4000-8000-00000000000a'), ('00000000-0000-4000-8000-000000000002', null, null);
insert into public.t select i,
  case when i % 4 < 3 then ('00000000-0000-4000-8000-00000000000' || i % 4)::uuid end, case when i % 3 < 2 then ('00000000-0000-4000-8000-00000000000' || i % 3)::uuid end,
  case when i % 5 < 3 then ('00000000-0000-4000-8000-00000000000' || i % 5)::uuid end, case i % 3 when 0 then true when 1 then false end,
  case when i % 2 = 0 then '00000000-0000-4000-8000-00000000000a'::uuid end, case i % 3 when 0 then 'a@b.c' when 1 then 'x' end, case i % 3 when 0 then 't1' when 1 then 't2' end, i % 4,
  nullif(i % 5, 4), case i % 3 when 0 then 'open' when 1 then 'closed' end::public.status, now() + (i - 15) * interval '1 day', case i % 2 when 0 then 'a' end, case i % 3 when 0 then array['t1','x'] when 1 then '{}'::text[] end
  from generate_series(0, 29) i;
create function public.is_member(room int) returns boolean language sql security definer set search_path = '' as $$ select exists (select 1 from public.room_members where room_id = room and user_id = auth.uid()) $$;
create function public.my_rooms() returns setof int language sql security definer stable set search_path = '' as $$ select room_id from public.room_members where user_id = (select auth.uid()); $$;
create function public.my_role() returns text language sql stable as $$ select role from profiles where id = auth.uid() $$;
create function public.opaque(room int) returns boolean language plpgsql stable as $$ begin return room = 1; end $$;
create function public.jwt_org() returns uuid language sql stable as $$ select (auth.jwt() -> 'app_metadata' ->> 'org_id')::uuid $$;
grant select on all tables in schema public to anon, authenticated;
alter table public.room_members enable row level security;
create policy own on public.room_members for select using (user_id = auth.uid());
create table public.open_members (room_id int, user_id uuid);
insert into public.open_members select room_id, user_id from public.room_members;
grant select on public.open_members to anon, authenticated;
`

// TestCompileShapes holds the tier of the expressions that policies are made of,
// and that every tier decides as PostgreSQL does.
func TestCompileShapes(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx := t.Context()
	admin := db.Pool("supabase_admin")
	if _, err := admin.Exec(ctx, shapesSQL); err != nil {
		t.Fatal(err)
	}
	u := &universe{t: t, admin: admin, user: db.Pool("authenticator")}
	u.load()
	for _, tt := range []struct {
		using string
		tier  policy.Tier
	}{
		{"true", policy.TierConstant},
		{"false", policy.TierConstant},
		{"auth.role() = 'authenticated'", policy.TierPredicate},
		{"auth.uid() = user_id", policy.TierPredicate},
		{"(select auth.uid()) = user_id", policy.TierPredicate},
		{"auth.uid() is not null", policy.TierPredicate},
		{"user_id in (auth.uid(), other)", policy.TierPredicate},
		{"is_public or owner = auth.uid()", policy.TierPredicate},
		{"(auth.jwt() -> 'app_metadata' ->> 'org_id')::uuid = org_id", policy.TierPredicate},
		{"auth.jwt() ->> 'email' = email", policy.TierPredicate},
		{"auth.email() = email", policy.TierPredicate},
		{"auth.jwt() -> 'app_metadata' -> 'roles' ? 'admin'", policy.TierPredicate},
		{"team_id = any (array(select jsonb_array_elements_text(auth.jwt() -> 'app_metadata' -> 'teams')))", policy.TierPredicate},
		{"team_id in (select jsonb_array_elements_text(auth.jwt() -> 'app_metadata' -> 'teams'))", policy.TierPredicate},
		{"team_id not in (select jsonb_array_elements_text(auth.jwt() -> 'app_metadata' -> 'teams'))", policy.TierPredicate},
		{"team_no = any (array(select jsonb_array_elements_text(auth.jwt() -> 'app_metadata' -> 'numbers'))::int[])", policy.TierPredicate},
		{"team_no in (select value::int from jsonb_array_elements_text(auth.jwt() -> 'app_metadata' -> 'numbers'))", policy.TierPredicate},
		{"(auth.jwt() -> 'app_metadata' -> 'teams') ? team_id", policy.TierPredicate},
		{"auth.jwt() #>> '{app_metadata,teams,0}' = team_id", policy.TierPredicate},
		{"coalesce((auth.jwt() -> 'app_metadata' ->> 'super')::boolean, false) or owner = auth.uid()", policy.TierPredicate},
		{"current_setting('request.jwt.claims', true)::jsonb ->> 'sub' = user_id::text", policy.TierPredicate},
		{"status = 'open' and team_no between 1 and 2", policy.TierPredicate},
		{"status is distinct from 'open'", policy.TierPredicate},
		{"case when is_public then true when owner is null then false else owner = auth.uid() end", policy.TierPredicate},
		{"coalesce(is_public, false)", policy.TierPredicate},
		{"nullif(team_id, 't1') = 't2'", policy.TierPredicate},
		{"team_id = any (tags) and not is_public is true", policy.TierPredicate},
		{"kind = 'a' and kind <> all ('{b,c}'::text[])", policy.TierPredicate},
		{"public.jwt_org() = org_id", policy.TierPredicate},
		{"created_at < now()", policy.TierSet},
		{"created_at > now() - interval '3 days' and owner = auth.uid()", policy.TierSet},
		{"created_at::date = current_date", policy.TierSet},
		{"lower(team_id) = 't1'", policy.TierSet},
		{"team_id like 't%'", policy.TierSet},
		{"tags && array['t1']", policy.TierSet},
		{"team_id = any (string_to_array(auth.jwt() ->> 'list', ','))", policy.TierSet},
		{"exists (select 1 from open_members m where m.room_id = t.room_id and m.user_id = auth.uid())", policy.TierSet},
		{"exists (select 1 from room_members m where m.room_id = t.room_id and m.user_id = (select auth.uid()))", policy.TierSet},
		{"room_id in (select room_id from room_members where user_id = auth.uid())", policy.TierSet},
		{"room_id in (select room_id from room_members)", policy.TierSet},
		{"room_id not in (select room_id from room_members)", policy.TierSet},
		{"not exists (select 1 from room_members m where m.room_id = t.room_id)", policy.TierSet},
		{"auth.uid() in (select user_id from open_members where open_members.room_id = t.room_id)", policy.TierSet},
		{"room_id = any (array(select room_id from open_members where user_id = auth.uid()))", policy.TierSet},
		{"exists (select 1 from rooms r join open_members m on m.room_id = r.id where r.id = t.room_id and m.user_id = auth.uid())", policy.TierSet},
		{"exists (select 1 from rooms r where r.id = t.room_id and exists (select 1 from room_members m where m.room_id = r.id and m.role = 'admin'))", policy.TierSet},
		{"exists (select 1 from rooms r left join open_members m on m.room_id = r.id where r.id = t.room_id and m.user_id is null)", policy.TierSet},
		{"is_public or exists (select 1 from open_members m where m.room_id = t.room_id and m.user_id = auth.uid())", policy.TierSet},
		{"(select role from profiles where id = auth.uid()) = 'admin'", policy.TierSet},
		{"(select count(*) from open_members m where m.room_id = t.room_id) > 1", policy.TierSet},
		{"public.is_member(room_id)", policy.TierSet},
		{"(select public.is_member(room_id))", policy.TierSet},
		{"room_id in (select public.my_rooms())", policy.TierSet},
		{"room_id in (select * from public.my_rooms())", policy.TierSet},
		{"public.my_role() = 'admin'", policy.TierSet},
		{"exists (select 1 from rooms where rooms.id = t.room_id and (rooms.is_open or rooms.owner = auth.uid()))", policy.TierSet},
		{"public.opaque(room_id)", policy.TierUser},
		{"current_user = 'authenticated'", policy.TierUser},
		{"random() < 2", policy.TierUser},
	} {
		t.Run(tt.using, func(t *testing.T) {
			u.check(t, []string{"create policy p on public.t for select using (" + tt.using + ")"}, tt.tier)
		})
	}
	if u.open == 0 {
		t.Error("no policy had an open statement")
	}
	t.Run("restrictive", func(t *testing.T) {
		u.check(t, []string{
			"create policy a on public.t for select using (exists (select 1 from open_members m where m.room_id = t.room_id and m.user_id = auth.uid()))",
			"create policy b on public.t for select using (owner = auth.uid())",
			"create policy c on public.t as restrictive for select using (team_no > 0)",
			"create policy d on public.t as restrictive for all to authenticated using (is_public is not false)",
			"create policy e on public.t for select to anon using (true)",
		}, policy.TierSet)
	})
}

func TestNever(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	admin := db.Pool("supabase_admin")
	if _, err := admin.Exec(t.Context(), shapesSQL); err != nil {
		t.Fatal(err)
	}
	u := &universe{t: t, admin: admin, user: db.Pool("authenticator")}
	u.load()
	nobody, somebody := u.who[0], u.who[2]
	for using, never := range map[string]bool{
		"auth.uid() = user_id":                      true,
		"auth.uid() is not null":                    true,
		"auth.role() = 'authenticated'":             true,
		"is_public or owner = auth.uid()":           false,
		"is_public and owner = auth.uid()":          true,
		"not (auth.uid() = user_id)":                true,
		"coalesce(auth.uid() = user_id, is_public)": false,
		"exists (select 1 from open_members m where m.room_id = t.room_id and m.user_id = auth.uid())":              true,
		"is_public or exists (select 1 from open_members m where m.room_id = t.room_id and m.user_id = auth.uid())": false,
		"exists (select 1 from open_members m where m.room_id = t.room_id)":                                         false,
	} {
		if _, err := admin.Exec(t.Context(), "create policy p on public.t for select using ("+using+")"); err != nil {
			t.Fatal(err)
		}
		for _, who := range []sluice.Claims{nobody, somebody} {
			p, err := policy.Compile(t.Context(), admin, policy.Input{Table: &u.table, Guard: u.oid, Role: who.Role, SearchPath: "public"})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := p.Bind(who).Never(), never && who.Subject == ""; got != want {
				t.Errorf("%s, sub %q: %v", using, who.Subject, got)
			}
		}
		if _, err := admin.Exec(t.Context(), "drop policy p on public.t"); err != nil {
			t.Fatal(err)
		}
	}
}

// universe is a table with rows, and people who look at it.
type universe struct {
	t     *testing.T
	admin *pg.Pool
	user  *pg.Pool
	who   []sluice.Claims
	oid   uint32
	table policy.Table
	rows  [][]sluice.Value
	ids   []int
	open  int // comparisons of an open statement
}

func (u *universe) load() {
	u.t.Helper()
	ctx := u.t.Context()
	claim := func(role, sub, more string) {
		c := sluice.Claims{Role: role, Subject: sub}
		c.JSON = json.RawMessage(`{"role":` + strconv.Quote(role) + more + `}`)
		if sub != "" {
			c.JSON = json.RawMessage(`{"role":` + strconv.Quote(role) + `,"sub":` + strconv.Quote(sub) + more + `}`)
		}
		u.who = append(u.who, c)
	}
	claim("anon", "", "")
	for i := range 4 {
		claim("authenticated", fmt.Sprintf("00000000-0000-4000-8000-00000000000%d", i), "")
	}
	one := "00000000-0000-4000-8000-000000000001"
	claim("authenticated", one, `,"email":"a@b.c","list":"t1,t2","app_metadata":{"org_id":"00000000-0000-4000-8000-00000000000A","roles":["admin"],"teams":["t1","t9"],"numbers":[1,2],"super":true}`)
	claim("authenticated", one, `,"email":null,"app_metadata":{"org_id":null,"roles":"admin","teams":[],"numbers":[null,1],"super":false}`)
	claim("authenticated", one, `,"app_metadata":{"org_id":"no uuid","roles":{"admin":1},"teams":"t1","numbers":["x"],"super":"perhaps"}`)
	claim("authenticated", "no uuid", "")
	u.table = policy.Table{Schema: "public", Name: "t", Alias: "t"}
	if err := u.admin.QueryRow(ctx, "select 'public.t'::regclass::oid").Scan(&u.oid); err != nil {
		u.t.Fatal(err)
	}
	rows, err := u.admin.Query(ctx, "select attname from pg_attribute where attrelid = $1 and attnum > 0 order by attnum", u.oid)
	if err != nil {
		u.t.Fatal(err)
	}
	if u.table.Columns, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		u.t.Fatal(err)
	}
	list := make([]string, len(u.table.Columns))
	for i, c := range u.table.Columns {
		list[i] = c + "::text"
	}
	// bool::text is not bool's output.
	sql := strings.Replace("select "+strings.Join(list, ", ")+" from public.t order by t.id", "is_public::text", "left(is_public::text, 1)", 1)
	if rows, err = u.admin.Query(ctx, sql); err != nil {
		u.t.Fatal(err)
	}
	for rows.Next() {
		var row []sluice.Value
		for _, v := range rows.RawValues() {
			if v == nil {
				row = append(row, sluice.Value{Kind: sluice.ValueNull})
			} else {
				row = append(row, sluice.Value{Kind: sluice.ValueText, Text: append([]byte{}, v...)})
			}
		}
		u.rows = append(u.rows, row)
		u.ids = append(u.ids, len(u.ids))
	}
	if rows.Err() != nil {
		u.t.Fatal(rows.Err())
	}
}

// check makes the policies and compares what PostgreSQL shows with what the plan
// decides, for everybody.
func (u *universe) check(t *testing.T, policies []string, tier policy.Tier) {
	t.Helper()
	ctx := t.Context()
	if _, err := u.admin.Exec(ctx, strings.Join(policies, ";")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, p := range policies {
			name := strings.Fields(p)[2]
			if _, err := u.admin.Exec(context.WithoutCancel(ctx), "drop policy "+name+" on public.t"); err != nil {
				t.Error(err)
			}
		}
	}()
	plans := map[string]*policy.Plan{}
	for _, who := range u.who {
		if plans[who.Role] != nil {
			continue
		}
		p, err := policy.Compile(ctx, u.admin, policy.Input{Table: &u.table, Guard: u.oid, Role: who.Role, SearchPath: "public, extensions"})
		if err != nil {
			t.Fatalf("Compile: %v", err)
		}
		plans[who.Role] = p
	}
	if p := plans["authenticated"]; p.Tier != tier {
		t.Errorf("tier %s (%s), want %s\n%s", p.Tier, p.Why, tier, p.SQL)
	}
	for _, who := range u.who {
		p := plans[who.Role]
		got := u.decide(t, p, who)
		want := u.oracle(t, who)
		if p.Bind(who).Never() && slices.Contains(want, true) {
			t.Errorf("%s %s: never, and PostgreSQL shows %v", who.Role, who.JSON, want)
		}
		for i := range u.rows {
			if got[i] == policy.Unsure && p.Tier != policy.TierUser && p.Bind(who).Odd() {
				continue
			}
			if p.Tier != policy.TierUser && (got[i] == policy.Yes) != want[i] {
				t.Errorf("row %d, %s %s: %d, PostgreSQL shows it: %v\n%s", i, who.Role, who.JSON, got[i], want[i], p.SQL)
			}
		}
	}
}

func (u *universe) decide(t *testing.T, p *policy.Plan, who sluice.Claims) []policy.Answer {
	t.Helper()
	out := make([]policy.Answer, len(u.rows))
	b := p.Bind(who)
	switch {
	case p.Tier == policy.TierUser:
	case p.Tier == policy.TierSet && b.Odd():
		for i := range out {
			out[i] = policy.Unsure
		}
	case p.Tier == policy.TierSet:
		list := []byte{'{'}
		for i, r := range u.rows {
			if i > 0 {
				list = append(list, ',')
			}
			values := make([][]byte, len(r))
			for k, v := range r {
				if v.Kind == sluice.ValueText {
					values[k] = append([]byte{}, v.Text...)
				}
			}
			list = policy.AppendRow(list, values)
		}
		c, err := u.admin.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
		res := c.Conn().PgConn().ExecParams(t.Context(), p.SQL, p.SetArgs(append(list, '}'), []*policy.Bound{b}), nil, nil, nil).Read()
		if res.Err != nil {
			t.Fatalf("%v\n%s", res.Err, p.SQL)
		}
		for _, r := range res.Rows {
			n, _ := strconv.Atoi(string(r[0]))
			out[n-1] = policy.Yes
		}
		if p.OpenSQL != "" {
			u.compareOpen(t, c.Conn().PgConn(), p, b, append(list, '}'), out)
		}
	default:
		judge := p.Judge()
		for i, r := range u.rows {
			row := p.Row(r)
			out[i] = judge.See(b, &row)
		}
	}
	return out
}

// compareOpen asks the statement that does not say who asks.
func (u *universe) compareOpen(t *testing.T, c *pgconn.PgConn, p *policy.Plan, b *policy.Bound, rows []byte, closed []policy.Answer) {
	t.Helper()
	res := c.ExecParams(t.Context(), p.OpenSQL, [][]byte{rows, []byte("100000")}, nil, nil, nil).Read()
	if res.Err != nil {
		t.Fatalf("%v\n%s", res.Err, p.OpenSQL)
	}
	me, some := b.Open()
	out := make([]policy.Answer, len(closed))
	for _, r := range res.Rows {
		n, _ := strconv.Atoi(string(r[0]))
		if r[1] == nil || some && string(r[1]) == me {
			out[n-1] = policy.Yes
		}
	}
	if d := cmp.Diff(closed, out); d != "" {
		t.Errorf("the open statement differs: %s\n%s", d, p.OpenSQL)
	}
	u.open++
}

// oracle is what PostgreSQL shows, row by row: an error hides that row alone.
func (u *universe) oracle(t *testing.T, who sluice.Claims) []bool {
	t.Helper()
	out := make([]bool, len(u.rows))
	read := func(where string) error {
		return u.user.As(t.Context(), who, pg.AsOptions{ReadOnly: true}, func(ctx context.Context, tx pg.Tx) error {
			rows, err := tx.Query(ctx, "select id from public.t "+where)
			if err != nil {
				return err
			}
			ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
			for _, id := range ids {
				out[id] = true
			}
			return err
		})
	}
	if read("") == nil {
		return out
	}
	clear(out)
	for i := range out {
		_ = read("where id = " + strconv.Itoa(i)) // an error is a no
	}
	return out
}
