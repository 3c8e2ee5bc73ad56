package realtime_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

// original asks as the original does: on a superuser's connection, with set_config
// in between.
func original(ctx context.Context, t *testing.T, db *pgtest.DB, claims sluice.Claims, topic string, write bool) (may [2]bool, undecided bool) {
	t.Helper()
	tx, err := db.Admin().Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx) //nolint:errcheck // it is what the original does
	names := [2]string{"broadcast", "presence"}
	var ids [2]string
	if !write {
		for i, name := range names {
			if err := tx.QueryRow(ctx, `insert into realtime.messages (topic, extension) values ($1, $2) returning id::text`, topic, name).Scan(&ids[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err = tx.Exec(ctx, `select set_config('role', $1, true), set_config('realtime.topic', $2, true), set_config('request.jwt.claims', $3, true),
		set_config('request.jwt.claim.sub', $4, true), set_config('request.jwt.claim.role', $1, true), set_config('request.headers', '{}', true)`,
		claims.Role, topic, string(claims.JSON), claims.Subject)
	if err != nil {
		return may, true
	}
	if !write {
		rows, err := tx.Query(ctx, `select id::text from realtime.messages where id::text = any ($1)`, ids[:])
		if err != nil {
			return may, true
		}
		seen, err := pgx.CollectRows(rows, pgx.RowTo[string])
		for _, id := range seen {
			may[0], may[1] = may[0] || id == ids[0], may[1] || id == ids[1]
		}
		return may, err != nil
	}
	for i, name := range names {
		if _, err := tx.Exec(ctx, "savepoint probe"); err != nil {
			t.Fatal(err)
		}
		_, err := tx.Exec(ctx, `insert into realtime.messages (topic, extension) values ($1, $2)`, topic, name)
		var pe *pgconn.PgError
		switch {
		case err == nil:
			may[i] = true
		case errors.As(err, &pe) && pe.Code == "42501":
		default:
			return may, true
		}
		if _, err := tx.Exec(ctx, "rollback to savepoint probe"); err != nil {
			t.Fatal(err)
		}
	}
	return may, false
}

// Our probes, on a login that is nobody, say what the original's say.
func TestProbesEqualTheOriginals(t *testing.T) {
	t.Parallel()
	const alice, bob = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
	policies := []string{
		``,
		`create policy p on realtime.messages using (true)`,
		`create policy p on realtime.messages for select using (true)`,
		`create policy p on realtime.messages for insert with check (true)`,
		`create policy p on realtime.messages to authenticated using (true)`,
		`create policy p on realtime.messages using (extension = 'broadcast') with check (extension = 'presence')`,
		`create policy p on realtime.messages using (realtime.topic() = 'room' and topic = realtime.topic())`,
		`create policy p on realtime.messages using (realtime.topic() = 'user:' || auth.uid())`,
		`create policy p on realtime.messages using (auth.role() = 'anon' or auth.jwt() ->> 'email' like '%@example.com')`,
		`create policy p on realtime.messages using (exists (select from public.members where room = realtime.topic() and user_id = (select auth.uid())))`,
		`create policy p on realtime.messages using (exists (select from public.hidden where room = realtime.topic()))`,
		`create policy p on realtime.messages using (public.is_member(realtime.topic()))`,
		`create policy p on realtime.messages using (true); create policy r on realtime.messages as restrictive using (extension <> 'presence' or auth.uid() is not null)`,
		`create policy p on realtime.messages using (1 / (length(realtime.topic()) - 4) >= 0)`,
		`create policy p on realtime.messages using (private or event is not null or payload is not null)`,
		`create policy p on realtime.messages using (not private and event is null and payload is null and binary_payload is null and inserted_at between (now() at time zone 'utc') - interval '1 hour' and (now() at time zone 'utc') + interval '1 hour')`,
		`create policy p on realtime.messages using (current_user = 'authenticated' or current_setting('request.jwt.claim.sub') = '')`,
		`create policy p on realtime.messages using (auth.uid()::text = current_setting('request.jwt.claim.sub') and pg_has_role('authenticated', 'usage'))`,
		`create policy p on realtime.messages using (true); revoke select on realtime.messages from anon; revoke insert on realtime.messages from authenticated`,
		`create policy p on realtime.messages using (true); alter table realtime.messages force row level security`,
		`alter table realtime.messages disable row level security`,
		`create policy p on realtime.messages using (current_setting('request.headers')::jsonb = '{}')`,
		`create policy p on realtime.messages using (set_config('role', 'service_role', true) is not null and false)`,
	}
	id := func(role, sub, more string) sluice.Claims {
		return sluice.Claims{Role: role, Subject: sub, JSON: []byte(fmt.Sprintf(`{"role":%q,"sub":%q%s}`, role, sub, more))}
	}
	users := []sluice.Claims{
		id("authenticated", alice, `,"email":"a@example.com"`), id("authenticated", bob, ""), id("anon", "", ""),
		{Role: "anon", JSON: []byte(`{"role":"anon"}`)},
		id("service_role", "", ""), id("authenticated", "no uuid", ""), id("nobody", alice, ""),
	}
	db := pgtest.New(t)
	db.Exec(`
create table public.members (room text, user_id uuid); alter table public.members enable row level security;
create policy own on public.members using (user_id = auth.uid());
create table public.hidden (room text); revoke all on public.hidden from anon, authenticated;
create function public.is_member(r text) returns boolean language sql stable security definer as $$ select exists (select from public.members where room = r and user_id = auth.uid()) $$;
insert into public.hidden values ('room');
insert into public.members values ('room', '` + alice + `')`)
	w := realWorld(t, db)
	compared, allowed := 0, 0
	for _, policy := range policies {
		if policy != "" {
			db.Exec(policy)
		}
		for _, claims := range users {
			for _, topic := range []string{"room", "rooms", "user:" + alice} {
				for _, write := range []bool{false, true} {
					want, undecided := original(t.Context(), t, db, claims, topic, write)
					got, err := w.srv.Rights(t.Context(), claims, topic, write)
					if (err != nil) != undecided || err == nil && got != want {
						t.Errorf("%s\n%s on %q, write %t: %v %v, the original says %v %t", policy, claims.JSON, topic, write, got, err, want, undecided)
					}
					compared++
					if want[0] {
						allowed++
					}
				}
			}
		}
		db.Exec(`drop policy if exists p on realtime.messages; drop policy if exists r on realtime.messages;
grant select, insert on realtime.messages to anon, authenticated;
alter table realtime.messages enable row level security; alter table realtime.messages no force row level security`)
	}
	if allowed < compared/10 {
		t.Errorf("only %d of %d questions were answered yes: the comparison has lost its grip", allowed, compared)
	}
}
