package pg_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

// userMigration is what a chat application's migrations do, in the forms that
// documentation and `db pull` teach.
const userMigration = `
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE EXTENSION IF NOT EXISTS "pg_stat_statements" WITH SCHEMA "extensions";
CREATE EXTENSION IF NOT EXISTS "pgcrypto" WITH SCHEMA "extensions";
CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA "extensions";
ALTER SCHEMA "public" OWNER TO "pg_database_owner";
COMMENT ON SCHEMA "public" IS 'standard public schema';

CREATE TABLE IF NOT EXISTS "public"."profiles" (
    "id" "uuid" NOT NULL,
    "email" "text",
    "username" "text"
);
ALTER TABLE "public"."profiles" OWNER TO "postgres";
ALTER TABLE ONLY "public"."profiles" ADD CONSTRAINT "profiles_pkey" PRIMARY KEY ("id");
ALTER TABLE ONLY "public"."profiles" ADD CONSTRAINT "profiles_id_fkey" FOREIGN KEY ("id") REFERENCES "auth"."users"("id") ON DELETE CASCADE;
ALTER TABLE "public"."profiles" ENABLE ROW LEVEL SECURITY;
CREATE POLICY "own profile" ON "public"."profiles" TO "authenticated" USING ((( SELECT "auth"."uid"() AS "uid") = "id"));

CREATE OR REPLACE FUNCTION "public"."handle_new_user"() RETURNS "trigger"
    LANGUAGE "plpgsql" SECURITY DEFINER
    SET "search_path" TO ''
    AS $$
begin
  insert into public.profiles (id, email, username) values (new.id, new.email, new.raw_user_meta_data ->> 'username');
  return new;
end;
$$;
ALTER FUNCTION "public"."handle_new_user"() OWNER TO "postgres";
ALTER PUBLICATION "supabase_realtime" OWNER TO "postgres";
ALTER PUBLICATION "supabase_realtime" ADD TABLE ONLY "public"."profiles";
GRANT USAGE ON SCHEMA "public" TO "postgres";
GRANT USAGE ON SCHEMA "public" TO "anon";
GRANT ALL ON TABLE "public"."profiles" TO "anon";
ALTER DEFAULT PRIVILEGES FOR ROLE "postgres" IN SCHEMA "public" GRANT ALL ON TABLES  TO "service_role";
RESET ALL;

drop trigger if exists on_auth_user_created on auth.users;
create trigger on_auth_user_created after insert on auth.users for each row execute procedure public.handle_new_user();
drop trigger if exists on_auth_user_created on auth.users;
create trigger on_auth_user_created after insert on auth.users for each row execute procedure public.handle_new_user();
create or replace trigger on_auth_user_created after insert on auth.users for each row execute function public.handle_new_user();

create table messages (id bigint generated always as identity primary key, user_id uuid not null default auth.uid() references auth.users on delete cascade, room text, body text);
alter table messages enable row level security;
create policy "read" on messages for select to authenticated using (true);
create policy "write" on messages for insert to authenticated with check (auth.uid() = user_id);
alter table messages replica identity full;
create view who_is_who as select u.id, u.email from auth.users u;

begin;
drop publication if exists supabase_realtime;
create publication supabase_realtime;
commit;
alter publication supabase_realtime add table messages, public.profiles;

insert into storage.buckets (id, name, public) values ('avatars', 'avatars', true) on conflict do nothing;
create policy "own folder" on storage.objects for insert to authenticated with check (bucket_id = 'avatars' and (storage.foldername(name))[1] = auth.uid()::text);
drop policy if exists "own folder" on storage.objects;
create policy "own folder" on storage.objects to authenticated using (bucket_id = 'avatars' and (select auth.uid()::text) = (storage.foldername(name))[1]);

create policy "room" on realtime.messages for select to authenticated using (realtime.topic() like 'room:%' and extension in ('broadcast', 'presence'));
alter policy "room" on realtime.messages using (realtime.topic() = 'room:1');
create policy "send" on "realtime"."messages" for insert to authenticated with check (true);
drop policy "send" on realtime.messages;
create function broadcast_message() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  perform realtime.broadcast_changes('room:' || new.room, TG_OP, TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, new, old);
  return null;
end $$;
create trigger broadcast after insert on messages for each row execute function broadcast_message();
create function hook(event jsonb) returns jsonb language sql stable as $$ select event $$;
grant execute on function hook to supabase_auth_admin;
grant usage on schema public to supabase_auth_admin;
revoke execute on function hook from authenticated, anon, public;
insert into realtime.messages (topic, extension) values ('t', 'broadcast');
create trigger on_message after insert on realtime.messages for each row execute function broadcast_message();
drop trigger on_message on realtime.messages;
truncate realtime.messages;
`

// spec: auth:143 pgchanges:140
func TestTypicalUserMigration(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", userMigration)
	p := db.Pool("supabase_admin")

	// A sign-up, as Auth does it: its own role, the trigger in its transaction.
	db.ExecAs("supabase_auth_admin", fmt.Sprintf(`insert into users (id, instance_id, aud, role, email, raw_user_meta_data) values
		('%s', '00000000-0000-0000-0000-000000000000', 'authenticated', 'authenticated', 'a@example.com', '{"username": "alice"}')`, alice))
	if got := ask(t, p, "select concat_ws('|', id, email, username) from public.profiles"); got != alice+"|a@example.com|alice" {
		t.Errorf("profile: %s", got)
	}
	// A seed inserts users as postgres.
	db.ExecAs("postgres", fmt.Sprintf(`insert into auth.users (id, email, encrypted_password) values ('%s', 'b@example.com', crypt('pw', gen_salt('bf', 4)));
		insert into auth.identities (user_id, provider_id, provider, identity_data) values ('%[1]s', '%[1]s', 'email', '{"sub":"%[1]s","email":"B@example.com"}')`, bob))

	rest := db.Pool("authenticator")
	as := func(id sluice.Claims, sql string) error {
		return rest.As(t.Context(), id, pg.AsOptions{}, func(ctx context.Context, tx pg.Tx) error {
			_, err := tx.Exec(ctx, sql)
			return err
		})
	}
	if err := as(user(alice), "insert into messages (room, body) values ('1', 'hello')"); err != nil {
		t.Error(err)
	}
	if err := as(user(bob), fmt.Sprintf("insert into messages (user_id, body) values ('%s', 'forged')", alice)); !errors.Is(err, sluice.ErrForbidden) {
		t.Errorf("a forged message: %v", err)
	}
	if err := as(user(alice), fmt.Sprintf("insert into storage.objects (bucket_id, name) values ('avatars', '%s/me.png')", alice)); err != nil {
		t.Error(err)
	}
	if err := as(user(bob), fmt.Sprintf("insert into storage.objects (bucket_id, name) values ('avatars', '%s/me.png')", alice)); !errors.Is(err, sluice.ErrForbidden) {
		t.Errorf("an object in another's folder: %v", err)
	}
	if got := ask(t, p, "select topic || event || private || (payload ->> 'operation') || (payload #>> '{record,body}') from realtime.messages"); got != "room:1INSERTtrueINSERThello" {
		t.Errorf("broadcast: %s", got)
	}
	got := ask(t, p, "select string_agg(schemaname || '.' || tablename, ' ' order by tablename) from pg_publication_tables where pubname = 'sluice'")
	if got != "public.messages realtime.messages public.profiles" && got != "realtime.messages public.messages public.profiles" {
		t.Errorf("published: %s", got)
	}

	// Deleting the user takes everything along.
	db.ExecAs("supabase_auth_admin", "delete from users where email = 'a@example.com'")
	if got := ask(t, p, "select concat((select count(*) from public.messages), (select count(*) from public.profiles))"); got != "01" {
		t.Errorf("left after deleting a user: %s", got)
	}
}

// What hosted projects refuse is refused here too.
func TestPostgresMayNotCreateInServiceSchemas(t *testing.T) {
	t.Parallel()
	p := pgtest.New(t).Pool("postgres")
	for _, sql := range []string{
		"create table auth.mine ()", "create function auth.mine() returns int language sql as 'select 1'",
		"create table storage.mine ()", "create table realtime.mine ()", "create type realtime.mine as enum ()",
		"create event trigger e on sql_drop execute function extensions.pgrst_drop_watch()",
		"create function public.c() returns int language c as 'x'", "alter role postgres superuser",
		"set role supabase_admin",
	} {
		if _, err := p.Exec(t.Context(), sql); err == nil {
			t.Errorf("postgres may: %s", sql)
		}
	}
}

// spec: auth:142
func TestAPIRolesSeeNothingInternal(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", "insert into auth.users (id, email) values ('"+alice+"', 'a@example.com')")
	p := db.Pool("authenticator")
	rows, err := db.Admin().Query(t.Context(), `
select format('select * from %I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = relnamespace
 where nspname in ('auth', 'sluice') and relkind in ('r', 'v', 'p', 'S', 'm')
union all select format('select sluice.%I', p.proname) || case when proname ~ 'partitions' then '(1, 1)' else '()' end
  from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = 'sluice' and proname in ('sync_publication', 'make_message_partitions')`)
	if err != nil {
		t.Fatal(err)
	}
	var queries []string
	for rows.Next() {
		var q string
		if err := rows.Scan(&q); err != nil {
			t.Fatal(err)
		}
		queries = append(queries, q)
	}
	if len(queries) < 25 {
		t.Fatalf("only %d objects", len(queries))
	}
	for _, role := range []string{"anon", "authenticated", "service_role"} {
		checks := []pg.EachCheck{{Claims: sluice.Claims{Role: role}}}
		for _, q := range queries {
			got, err := p.AsEach(t.Context(), q, checks, pg.AsOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !errors.Is(got[0].Err, sluice.ErrForbidden) {
				t.Errorf("%s: %s: %v", role, q, got[0].Err)
			}
		}
	}
}

// spec: auth:141
func TestAuthFunctions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("authenticator")
	const all = "select concat_ws('|', coalesce(auth.uid()::text, '-'), coalesce(auth.role(), '-'), coalesce(auth.email(), '-'), coalesce(auth.jwt()::text, '-'))"
	for _, c := range []struct{ claims, sub, role, email, claim, want string }{
		{want: "-|-|-|-"},
		{claims: `{}`, want: "-|-|-|{}"},
		{claims: `{"sub":"` + alice + `","role":"anon","email":"a@b"}`, want: alice + `|anon|a@b|{"sub": "` + alice + `", "role": "anon", "email": "a@b"}`},
		{claims: `{"sub":"` + alice + `"}`, sub: bob, role: "r", email: "e", want: bob + `|r|e|{"sub": "` + alice + `"}`},
		{claims: `{"a":1}`, claim: `{"b":2}`, want: `-|-|-|{"b": 2}`},
		{claims: `{"sub":null,"role":7}`, want: `-|7|-|{"sub": null, "role": 7}`},
		{claims: `{"sub":""}`, want: "22P02"},
		{claims: `{"sub":"x"}`, want: "22P02"},
		{sub: "x", want: "22P02"},
		{claims: `not json`, want: "22P02"},
	} {
		conn, err := p.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got string
		_, err = tx.Exec(t.Context(), "select set_config('role', 'anon', true)")
		for name, v := range map[string]string{"claims": c.claims, "claim.sub": c.sub, "claim.role": c.role, "claim.email": c.email, "claim": c.claim} {
			if v != "" && err == nil {
				_, err = tx.Exec(t.Context(), "select set_config('request.jwt.' || $1, $2, true)", name, v)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		err = tx.QueryRow(t.Context(), all).Scan(&got)
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			got = pe.Code
		}
		if got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
		_ = tx.Rollback(t.Context())
		// After the transaction the settings are empty strings, which is unset.
		if err := conn.QueryRow(t.Context(), "set role anon").Scan(); err == nil {
			t.Fatal("unreachable")
		}
		if err := conn.QueryRow(t.Context(), all).Scan(&got); err != nil || got != "-|-|-|-" {
			t.Errorf("after %+v: %s %v", c, got, err)
		}
		_, _ = conn.Exec(t.Context(), "reset role")
		conn.Release()
	}

	got := ask(t, db.Pool("supabase_admin"), `select string_agg(distinct concat_ws(' ', provolatile, prosecdef, lanname, proowner::regrole, has_function_privilege('anon', p.oid, 'execute')), ',')
		from pg_proc p join pg_language l on l.oid = prolang where pronamespace = 'auth'::regnamespace`)
	if diff := cmp.Diff("s f sql supabase_auth_admin t", got); diff != "" {
		t.Error(diff)
	}
}

func TestStorageFunctions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`insert into storage.buckets (id, name) values ('b', 'b'), ('c', 'c');
insert into storage.objects (bucket_id, name) values ('b', 'a.txt'), ('b', 'Dir/x.png'), ('b', 'Dir/y.png'), ('b', 'Dir/sub/z.png'), ('b', '50%_off'), ('c', 'other')`)
	p := db.Pool("supabase_admin")
	list := func(args string) string {
		return "select coalesce(string_agg(name || case when id is null then '/' else '' end, ' '), '') from storage.search(" + args + ")"
	}
	for sql, want := range map[string]string{
		"select storage.foldername('a/b/c.tar.gz')::text": "{a,b}",
		"select storage.foldername('c')::text":            "{}",
		"select storage.filename('a/b/c.tar.gz')":         "c.tar.gz",
		"select storage.extension('a/b/c.tar.gz')":        "gz",
		list("'', 'b'"):                      "Dir/ 50%_off a.txt",
		list("'', 'b', sortorder => 'desc'"): "Dir/ a.txt 50%_off",
		list("'dir/', 'b', 100, 2"):          "sub/ x.png y.png",
		list("'Dir/', 'b', 100, 2, 0, 'X'"):  "x.png",
		list("'Dir/', 'b', 1, 2, 1"):         "x.png",
		list("'50%_', 'b'"):                  "50%_off",
		list("'%', 'b'"):                     "",
		list("'', 'b', sortcolumn => 'name; drop table storage.objects'"): "Dir/ 50%_off a.txt",
		list("'', 'none'"): "",
	} {
		if got := ask(t, p, sql); got != want {
			t.Errorf("%s\n got %s\nwant %s", sql, got, want)
		}
	}
	// As a user only rows that policies show are listed.
	var got string
	err := db.Pool("authenticator").As(t.Context(), user(alice), pg.AsOptions{}, func(ctx context.Context, tx pg.Tx) error {
		return tx.QueryRow(ctx, list("'', 'b'")).Scan(&got)
	})
	if err != nil || got != "" {
		t.Errorf("as a user: %q %v", got, err)
	}
}
