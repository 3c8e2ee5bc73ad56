package pg_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

// The table of spec gateway-and-local-stack C.6 and postgres-changes 9.
func TestRoles(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	rows, err := db.Admin().Query(t.Context(), `
select rolname || ': ' || concat_ws(' ', case when rolcanlogin then 'login' end, case when rolsuper then 'superuser' end,
         case when not rolinherit then 'noinherit' end, case when rolcreatedb then 'createdb' end, case when rolcreaterole then 'createrole' end,
         case when rolreplication then 'replication' end, case when rolbypassrls then 'bypassrls' end,
         '[' || (select string_agg(g.rolname, ' ' order by g.rolname) from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid) || ']',
         (select string_agg(c, ' ' order by c) from pg_db_role_setting s, unnest(s.setconfig) c where s.setrole = r.oid and s.setdatabase = 0))
  from pg_roles r
 where rolname !~ '^pg_' and rolname !~ '_[0-9]{6,}$' and rolname ~ '^(anon|authenticat|service|postgres|supabase|dashboard|pgbouncer)'
 order by rolname`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"anon: statement_timeout=3s",
		"authenticated: statement_timeout=8s",
		"authenticator: login noinherit [anon authenticated service_role] lock_timeout=8s statement_timeout=8s",
		"dashboard_user: createdb createrole replication",
		"pgbouncer: login",
		"postgres: login createdb createrole replication bypassrls [anon authenticated pg_monitor pg_read_all_data pg_signal_backend service_role" +
			` supabase_auth_admin supabase_realtime_admin supabase_storage_admin] search_path="$user", public, extensions`,
		"service_role: bypassrls",
		`supabase_admin: login superuser createdb createrole replication bypassrls search_path="$user", public, auth, extensions`,
		"supabase_auth_admin: login noinherit createrole idle_in_transaction_session_timeout=60s search_path=auth",
		"supabase_etl_admin: login replication [pg_read_all_data]",
		"supabase_functions_admin: login noinherit createrole search_path=supabase_functions",
		"supabase_read_only_user: login bypassrls [pg_monitor pg_read_all_data] default_transaction_read_only=on",
		"supabase_realtime_admin: noinherit [anon authenticated service_role] search_path=public, extensions, realtime",
		"supabase_replication_admin: login replication",
		"supabase_storage_admin: login noinherit createrole [authenticator] search_path=storage",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAutoExposeNewTables(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	setUp := func(expose *bool) {
		t.Helper()
		if err := pg.Bootstrap(t.Context(), db.URL("supabase_admin"), pg.BootstrapOptions{AutoExposeNewTables: expose}); err != nil {
			t.Fatal(err)
		}
	}
	open := func(table string) string {
		t.Helper()
		db.ExecAs("postgres", "create table public."+table+" (id serial)")
		return ask(t, db.Pool("supabase_admin"), `select concat(has_table_privilege('anon', 'public.'||$1, 'select'), has_table_privilege('service_role', 'public.'||$1, 'insert'),
			has_sequence_privilege('authenticated', 'public.'||$1||'_id_seq', 'usage'))`, table)
	}
	yes, no := true, false
	if got := open("a"); got != "ttt" {
		t.Errorf("default: %s", got)
	}
	setUp(&no)
	if got := open("b"); got != "fff" {
		t.Errorf("off: %s", got)
	}
	setUp(nil)
	if got := open("c"); got != "ttt" {
		t.Errorf("unset is on again: %s", got)
	}
	// A migration's own decision stays while the option does not change.
	db.ExecAs("postgres", "alter default privileges in schema public revoke all on tables from anon")
	setUp(&yes)
	if got := open("d"); got != "ftt" {
		t.Errorf("after the migration: %s", got)
	}
}

// Extensions that migrations take for granted, with both spellings.
func TestExtensions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("postgres")
	for sql, want := range map[string]string{
		"select length(uuid_generate_v4()::text)::text":                                  "36",
		"select length(extensions.uuid_generate_v4()::text)::text":                       "36",
		"select length(gen_random_bytes(8))::text":                                       "8",
		"select (crypt('a', gen_salt('bf', 4)) like '$2a$%')::text":                      "true",
		"select (graphql_public.graphql(query => '{a}') ->> 'errors' is not null)::text": "true",
		// The example of jwt.io.
		`select sign('{"sub":"1234567890","name":"John Doe","iat":1516239022}', 'your-256-bit-secret')`:                                                     "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
		`select concat(payload, valid) from verify(extensions.sign('{"a":1}', 's', 'HS512'), 's', 'HS512')`:                                                 `{"a":1}t`,
		`select valid::text from verify(sign('{"a":1}', 's'), 'other')`:                                                                                     "false",
		`select valid::text from verify(sign('{"exp":1}', 's'), 's')`:                                                                                       "false",
		"select string_agg(extname, ' ' order by extname) from pg_extension where extname in ('pgcrypto', 'uuid-ossp')":                                     "pgcrypto uuid-ossp",
		"select string_agg(distinct nspname, ' ') from pg_extension join pg_namespace n on n.oid = extnamespace where extname in ('pgcrypto', 'uuid-ossp')": "extensions",
	} {
		if got := ask(t, p, sql); got != want {
			t.Errorf("%s\n got %s\nwant %s", sql, got, want)
		}
	}
	// Trusted extensions are for everyone who may create in the database.
	db.ExecAs("postgres", `create extension if not exists "uuid-ossp" with schema extensions; create extension if not exists pgcrypto with schema extensions;
create extension citext with schema extensions; create extension if not exists pg_trgm; create extension hstore schema public;`)
}

// The passwords of all roles that log in are the option's.
func TestPasswords(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	got := ask(t, db.Pool("supabase_admin"), `select count(distinct rolpassword) || ' ' || count(*) || ' ' || bool_and(rolpassword like 'SCRAM-SHA-256$4096:%')
		from pg_authid where rolcanlogin and rolname ~ '^(authenticator|postgres|supabase_.*|pgbouncer)$'`)
	if got != "1 10 true" {
		t.Errorf("verifiers: %s", got)
	}
	if got := ask(t, db.Pool("authenticator"), "select current_user::text"); got != "authenticator" {
		t.Errorf("logged in as %s", got)
	}
}
