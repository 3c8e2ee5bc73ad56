package pg_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

var quiet = slog.New(slog.DiscardHandler)

// emptyDatabase makes a database from template0 in the test's server and returns
// its URL for a role.
func emptyDatabase(t *testing.T, db *pgtest.DB, name string) func(role string) sluice.Secret {
	t.Helper()
	name = fmt.Sprintf("%s_%d", name, time.Now().UnixNano())
	db.Exec("create database " + name + " template template0")
	t.Cleanup(func() {
		_, _ = db.Admin().Exec(context.Background(), "drop database "+name+" with (force)")
	})
	return func(role string) sluice.Secret {
		cfg, err := pgx.ParseConfig(string(db.URL(role)))
		if err != nil {
			t.Fatal(err)
		}
		return sluice.Secret(fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable", cfg.Host, cfg.Port, role, cfg.Password, name))
	}
}

func connect(t *testing.T, url sluice.Secret) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), string(url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func mustExec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func one(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	var s string
	if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

// catalog is a fingerprint of everything that setup makes.
const catalog = `
select md5(string_agg(line, e'\n' order by line)) from (
  select format('%s %s %s', oid::regclass, relowner::regrole, relacl) || xmin from pg_class where relnamespace <> 'pg_toast'::regnamespace and oid >= 16384
  union all select format('%s %s %s', oid::regprocedure, proowner::regrole, proacl) || xmin from pg_proc where oid >= 16384
  union all select format('%s %s %s', rolname, rolpassword, rolvaliduntil) from pg_authid
  union all select format('%s %s', pubname, pubowner::regrole) || xmin from pg_publication
  union all select format('%s %s', evtname, evtenabled) || xmin from pg_event_trigger
  union all select format('%s %s %s', defaclrole::regrole, defaclnamespace, defaclacl) from pg_default_acl
  union all select format('%s %s %s', setdatabase, setrole, setconfig) from pg_db_role_setting
  union all select format('%s %s', nspname, nspacl) || xmin from pg_namespace where nspname !~ '^pg_(temp|toast_temp)'
) l (line)`

// A second start changes nothing.
func TestSetupIsIdempotent(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	url := emptyDatabase(t, db, "again")
	opt := pg.BootstrapOptions{JWTSecret: `it's a \secret\`, JWTExp: 3600}
	run := func() {
		t.Helper()
		if err := pg.Bootstrap(t.Context(), url("supabase_admin"), opt); err != nil {
			t.Fatal(err)
		}
		if err := pg.Migrate(t.Context(), url("supabase_admin"), quiet); err != nil {
			t.Fatal(err)
		}
	}
	run()
	conn := connect(t, url("supabase_admin"))
	before := one(t, conn, catalog)
	run()
	if after := one(t, conn, catalog); after != before {
		t.Error("the second run changed the catalog")
	}

	again := connect(t, url("postgres"))
	if got := one(t, again, "select current_setting('app.settings.jwt_secret') || current_setting('app.settings.jwt_exp')"); got != `it's a \secret\3600` {
		t.Errorf("settings: %s", got)
	}
	if got := one(t, again, "select pg_get_userbyid(datdba)::text from pg_database where datname = current_database()"); got != "postgres" {
		t.Errorf("the database belongs to %s", got)
	}
	// A changed option is applied, an empty one leaves what is there.
	opt = pg.BootstrapOptions{JWTExp: 60}
	run()
	again = connect(t, url("postgres"))
	if got := one(t, again, "select current_setting('app.settings.jwt_secret') || current_setting('app.settings.jwt_exp')"); got != `it's a \secret\60` {
		t.Errorf("settings: %s", got)
	}
	if err := pg.Bootstrap(t.Context(), url("supabase_admin"), pg.BootstrapOptions{JWTExp: -1}); !errors.Is(err, sluice.ErrInvalid) {
		t.Errorf("negative jwt_exp: %v", err)
	}
	if err := pg.Bootstrap(t.Context(), url("supabase_admin"), pg.BootstrapOptions{JWTSecret: "a\x00b"}); !errors.Is(err, sluice.ErrInvalid) {
		t.Errorf("NUL in the secret: %v", err)
	}
}

func TestConcurrentRunners(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	// Two databases of one cluster, three runners each: roles are shared.
	urls := []func(string) sluice.Secret{emptyDatabase(t, db, "c1"), emptyDatabase(t, db, "c2")}
	var wg sync.WaitGroup
	for _, url := range urls {
		for range 3 {
			wg.Go(func() {
				if err := pg.Bootstrap(t.Context(), url("supabase_admin"), pg.BootstrapOptions{}); err != nil {
					t.Errorf("bootstrap: %v", err)
				}
				if err := pg.Migrate(t.Context(), url("supabase_admin"), quiet); err != nil {
					t.Errorf("migrate: %v", err)
				}
			})
		}
	}
	wg.Wait()
	for _, url := range urls {
		got := one(t, connect(t, url("supabase_admin")), `select (count(*) = count(distinct ("set", version)) and count(*) > 8)::text from sluice.migrations`)
		if got != "true" {
			t.Error("files were applied twice or not at all")
		}
	}
}

func TestMigrateRefusesNewerAndChanged(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("supabase_admin")
	const newer = `insert into sluice.migrations ("set", version, name, checksum) values ('migrations', 9999, 'future', 'x')`
	db.Exec(newer)
	err := pg.Migrate(t.Context(), db.URL("supabase_admin"), quiet)
	if !errors.Is(err, pg.ErrNewerDatabase) || !errors.Is(err, sluice.ErrConflict) || !strings.Contains(err.Error(), "9999_future") {
		t.Errorf("newer: %v", err)
	}
	if err := pg.Bootstrap(t.Context(), db.URL("supabase_admin"), pg.BootstrapOptions{}); err != nil {
		t.Errorf("the other set is not concerned: %v", err)
	}
	db.Exec(`delete from sluice.migrations where version = 9999; `)
	db.Exec(`update sluice.migrations set checksum = 'other' where "set" = 'migrations' and version = 2`)
	err = pg.Migrate(t.Context(), db.URL("supabase_admin"), quiet)
	if !errors.Is(err, pg.ErrChangedMigration) || !strings.Contains(err.Error(), "0002_") {
		t.Errorf("changed: %v", err)
	}
	db.Exec(`delete from sluice.migrations where "set" = 'migrations' and version = 2`)
	if err = pg.Migrate(t.Context(), db.URL("supabase_admin"), quiet); !errors.Is(err, pg.ErrChangedMigration) {
		t.Errorf("hole: %v", err)
	}
	if got := ask(t, p, `select string_agg(version::text, ',' order by version) from sluice.migrations where "set" = 'migrations' and version < 5`); got != "1,3,4" {
		t.Errorf("a refused run changed the record: %s", got)
	}
}

func TestSetupErrors(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for name, run := range map[string]func(sluice.Secret) error{
		"Migrate":   func(u sluice.Secret) error { return pg.Migrate(t.Context(), u, quiet) },
		"Bootstrap": func(u sluice.Secret) error { return pg.Bootstrap(t.Context(), u, pg.BootstrapOptions{}) },
	} {
		err := run("postgres://u:hunter2@127.0.0.1:x/db")
		if !errors.Is(err, sluice.ErrInvalid) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: bad URL: %v", name, err)
		}
		err = run("postgres://u:hunter2@127.0.0.1:1/db?sslmode=disable&connect_timeout=2")
		if !errors.Is(err, sluice.ErrUnavailable) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: no server: %v", name, err)
		}
	}
	url := emptyDatabase(t, db, "notsuper")
	err := pg.Bootstrap(t.Context(), url("postgres"), pg.BootstrapOptions{})
	if !errors.Is(err, sluice.ErrForbidden) || !strings.Contains(err.Error(), "supabase_admin") {
		t.Errorf("bootstrap as postgres: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pg.Migrate(ctx, db.URL("supabase_admin"), quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A database without Bootstrap: any login that owns the database and may create
// roles. This is how `serve` meets a managed PostgreSQL.
func TestMigrateWithoutSuperuser(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	role := fmt.Sprintf("managed_%d", time.Now().UnixNano())
	db.Exec("create role " + role + " login createrole password 'postgres'")
	t.Cleanup(func() { // after the database is gone
		if _, err := db.Admin().Exec(context.Background(), "drop role "+role); err != nil {
			t.Error(err)
		}
	})
	url := emptyDatabase(t, db, "managed")
	mustExec(t, connect(t, url("supabase_admin")), fmt.Sprintf("do $$ begin execute format('alter database %%I owner to %s', current_database()); end $$", role))
	for range 2 {
		if err := pg.Migrate(t.Context(), url(role), quiet); err != nil {
			t.Fatal(err)
		}
	}
	conn := connect(t, url(role))
	mustExec(t, conn, `create table public.a (id uuid primary key references auth.users); alter publication supabase_realtime add table public.a`)
	if got := one(t, conn, "select sluice.sync_publication()::text || (select count(*) from pg_publication_tables where pubname = 'sluice')"); got != "true2" {
		t.Errorf("sync_publication: %s", got)
	}
	if got := one(t, conn, "select coalesce(auth.uid()::text, 'none')"); got != "none" {
		t.Errorf("auth.uid: %s", got)
	}
}

// A database that came from Supabase keeps what it has.
//
// spec: auth:145
func TestMigrateLeavesAloneWhatIsThere(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	url := emptyDatabase(t, db, "imported")
	if err := pg.Bootstrap(t.Context(), url("supabase_admin"), pg.BootstrapOptions{}); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, url("supabase_admin"))
	mustExec(t, conn, `
create schema auth authorization supabase_admin;
create schema realtime authorization supabase_admin;
create table auth.users (id uuid primary key, email varchar(100) not null, mine text);
create table auth.schema_migrations (version varchar(14) primary key);
insert into auth.schema_migrations select lpad(i::text, 2, '0') from generate_series(0, 69) i;
create function auth.uid() returns uuid language sql stable as $$ select '00000000-0000-0000-0000-000000000001'::uuid $$;
create table realtime.schema_migrations (version bigint primary key, inserted_at timestamp(0));
insert into realtime.schema_migrations values (20211116024918, now());
create type realtime.action as enum ('INSERT');
create table realtime.messages (topic text not null, extension text not null, payload jsonb, event text, private boolean default false,
  updated_at timestamp not null default now(), inserted_at timestamp not null default now(), id uuid not null default gen_random_uuid(),
  primary key (id, inserted_at)) partition by range (inserted_at);
alter table realtime.messages owner to supabase_realtime_admin;
create table realtime.messages_all partition of realtime.messages for values from ('2000-01-01') to ('2100-01-01');
create policy mine on realtime.messages using (true);
create table public.t (id int primary key);
create publication supabase_realtime for table public.t with (publish = 'insert');
alter publication supabase_realtime owner to postgres;
insert into auth.users values ('00000000-0000-0000-0000-000000000001', 'a@example.com', 'x');`)
	if err := pg.Migrate(t.Context(), url("supabase_admin"), quiet); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(one(t, conn, `select concat_ws('|',
  (select count(*) from auth.schema_migrations), (select count(*) from realtime.schema_migrations), auth.uid(),
  (select atttypmod from pg_attribute where attrelid = 'auth.users'::regclass and attname = 'email'),
  (select relowner::regrole from pg_class where oid = 'auth.users'::regclass),
  (select mine || is_anonymous from auth.users),
  (select count(*) from pg_policy where polrelid = 'realtime.messages'::regclass),
  (select string_agg(inhrelid::regclass::text, ',') from pg_inherits where inhparent = 'realtime.messages'::regclass),
  (select count(*) from pg_attribute where attrelid = 'realtime.messages'::regclass and attname = 'binary_payload'),
  (select string_agg(tablename, ',' order by tablename) from pg_publication_tables where pubname = 'sluice'),
  (select pubinsert::text || pubupdate from pg_publication where pubname = 'supabase_realtime'))`), "|")
	want := []string{"70", "1", "00000000-0000-0000-0000-000000000001", "104", "supabase_admin", "xfalse", "1", "realtime.messages_all", "1", "messages,t", "truefalse"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
