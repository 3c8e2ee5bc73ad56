package doctor_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

// spec: doctor:12
func TestTables(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", `
		create table public.published (id bigint primary key, user_id uuid);
		create table public."Unpublished" (id bigint primary key);
		create table public.no_policy (id bigint primary key);
		create table public.no_grant (id bigint primary key);
		create table public.keyless (id bigint);
		revoke select on public.no_grant from anon, authenticated;
		alter table public.published enable row level security;
		alter table public.no_policy enable row level security;
		create policy "own" on public.published for select to authenticated using (user_id = auth.uid());
		alter publication supabase_realtime add table public.published, public.no_policy, public.no_grant, public.keyless;`)
	w := newWorld(t)
	of := func(table string) doctor.Finding {
		t.Helper()
		return at(t, visit(t, doctor.Config{URL: w.URL, DatabaseURL: db.URL("postgres"), Tables: []string{table}}), doctor.HopTables)
	}
	for table, want := range map[string]struct {
		status doctor.Status
		code   sluice.Code
		rule   int
		fix    string
	}{
		"Unpublished":      {doctor.Fail, sluice.CodeTableNotPublished, 12, `alter publication supabase_realtime add table "public"."Unpublished";`},
		"public.no_policy": {doctor.Fail, sluice.CodeNoSelectPolicy, 0, `create policy "read" on "public"."no_policy"`},
		"no_grant":         {doctor.Fail, sluice.CodeNoSelectGrant, 0, `grant select on "public"."no_grant" to authenticated;`},
		"keyless":          {doctor.Warn, doctor.CodeIdentity, 0, `replica identity full`},
		"published":        {doctor.Warn, sluice.CodeNoPolicyForRole, 10, "before subscribe()"}, // for anon alone
		"missing":          {doctor.Fail, doctor.CodeNoTable, 0, "case-sensitive"},
	} {
		f := of(table)
		if f.Status != want.status {
			t.Errorf("%s: status %s: %+v", table, f.Status, f)
		}
		wantFinding(t, f, want.code, want.rule, want.fix)
	}
	// The doctor has only read.
	var n int
	if err := db.Admin().QueryRow(context.Background(), "select count(*) from pg_publication_tables where pubname = 'supabase_realtime' and tablename = 'Unpublished'").Scan(&n); err != nil || n != 0 {
		t.Errorf("the publication has changed: %d, %v", n, err)
	}
	// As a user, the policy for authenticated applies.
	r := visit(t, doctor.Config{URL: w.URL, DatabaseURL: db.URL("postgres"), Tables: []string{"published"}, Token: sluice.Secret(userToken(t, 3600e9))})
	if f := at(t, r, doctor.HopTables); f.Status != doctor.OK {
		t.Errorf("as the user: %+v", f)
	}
	db.ExecAs("postgres", "drop publication supabase_realtime")
	wantFinding(t, of("published"), doctor.CodeNoPublication, 12, "create publication supabase_realtime")
}

// spec: doctor:5
func TestTenantOfAnotherName(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("create schema _realtime; create table _realtime.tenants (external_id text)")
	w := newWorld(t, refuse(404, `{"error":"Tenant not found"}`, everything))
	r := visit(t, doctor.Config{URL: w.URL, DatabaseURL: db.URL("supabase_admin")})
	wantFinding(t, at(t, r, doctor.HopDatabase), doctor.CodeTenantNotFound, 4, "no rows", "SEED_SELF_HOST")
	db.Exec("insert into _realtime.tenants values ('realtime-dev')")
	r = visit(t, doctor.Config{URL: w.URL, DatabaseURL: db.URL("supabase_admin")})
	wantFinding(t, at(t, r, doctor.HopDatabase), doctor.CodeTenantNotFound, 5, "realtime-dev.supabase-realtime", "upstream in the gateway")
}

// spec: doctor:25
func TestMessagePartitions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := newWorld(t)
	messages := func() doctor.Finding {
		t.Helper()
		return at(t, visit(t, doctor.Config{URL: w.URL, DatabaseURL: db.URL("supabase_admin"), PrivateTopic: "room"}), doctor.HopMessages)
	}
	wantFinding(t, messages(), doctor.CodeNoMessagePolicy, 9, "create policy", "realtime.topic() = 'room'")
	db.Exec(`create policy "read" on realtime.messages for select to authenticated using (true)`)
	if f := messages(); f.Status != doctor.OK {
		t.Errorf("all is there: %+v", f)
	}
	var partition string
	if err := db.Admin().QueryRow(context.Background(), "select 'messages_' || to_char(now() at time zone 'utc', 'YYYY_MM_DD')").Scan(&partition); err != nil {
		t.Fatal(err)
	}
	db.Exec("drop table realtime." + pgx.Identifier{partition}.Sanitize())
	wantFinding(t, messages(), doctor.CodeNoPartition, 25, "partition", "Connect a client once")
}

// spec: doctor:20
func TestSlots(t *testing.T) {
	t.Parallel()
	db := pgtest.Private(t)
	w := newWorld(t)
	slots := func() doctor.Finding {
		t.Helper()
		return at(t, visit(t, doctor.Config{URL: w.URL, DatabaseURL: db.URL("supabase_admin")}), doctor.HopSlots)
	}
	if f := slots(); f.Status != doctor.OK {
		t.Errorf("no slot: %+v", f)
	}
	db.Exec("select pg_create_logical_replication_slot('sluice', 'pgoutput')")
	wantFinding(t, slots(), doctor.CodeSlot, 20, "active false", "select pg_drop_replication_slot('sluice');", "before the disk is full")
}

func TestDatabaseUnreachable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := visit(t, doctor.Config{URL: w.URL, DatabaseURL: "postgres://postgres:verysecret99@127.0.0.1:1/postgres"})
	wantFirst(t, r, doctor.HopDatabase, doctor.CodeDatabase, 0, "DB_URL")
}
