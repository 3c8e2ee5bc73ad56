package doctor_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

// TestMend: publication and replica identity are mended, and the next visit
// finds them so. What changes who may see something is left to a person.
func TestMend(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", `
		create table public."Hidden" (id bigint primary key);
		create table public.guarded (id bigint);
		create table public.nothing (id bigint primary key);
		create table public.no_policy (id bigint primary key);
		create table public.no_grant (id bigint primary key);
		revoke select on public.no_grant from anon, authenticated;
		alter table public.guarded enable row level security;
		alter table public.no_policy enable row level security;
		alter table public.nothing replica identity nothing;
		create policy "all" on public.guarded for select to anon, authenticated using (true);
		alter publication supabase_realtime add table public.nothing, public.no_policy, public.no_grant;`)
	w := newWorld(t)
	tables := []string{"Hidden", "guarded", "nothing", "no_policy", "no_grant"}
	visitTables := func() *doctor.Report {
		t.Helper()
		return visit(t, doctor.Config{URL: w.URL, DatabaseURL: db.URL("postgres"), Tables: tables})
	}
	fixes := visitTables().Fixes()
	want := []string{
		`alter publication supabase_realtime add table "public"."Hidden"; -- row level security is off for "public"."Hidden": its changes go to every role that may select`,
		`alter publication supabase_realtime add table "public"."guarded";`,
		`alter table "public"."nothing" replica identity default;`,
	}
	sorted := cmp.Transformer("set", func(s []string) map[string]bool {
		m := map[string]bool{}
		for _, v := range s {
			m[v] = true
		}
		return m
	})
	if diff := cmp.Diff(want, fixes, sorted); diff != "" {
		t.Fatal(diff)
	}

	// All or nothing.
	err := doctor.Mend(t.Context(), db.URL("postgres"), append([]string{fixes[0]}, `alter table public.missing replica identity full;`))
	if err == nil {
		t.Error("a statement that fails is no error")
	}
	if diff := cmp.Diff(want, visitTables().Fixes(), sorted); diff != "" {
		t.Error(diff)
	}

	if err := doctor.Mend(t.Context(), db.URL("postgres"), fixes); err != nil {
		t.Fatal(err)
	}
	// A table without a key is seen once it is published.
	fixes = visitTables().Fixes()
	if diff := cmp.Diff([]string{`alter table "public"."guarded" replica identity full;`}, fixes); diff != "" {
		t.Fatal(diff)
	}
	if err := doctor.Mend(t.Context(), db.URL("postgres"), fixes); err != nil {
		t.Fatal(err)
	}
	if left := visitTables().Fixes(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}

	// The publication itself, with the tables that were named.
	db.ExecAs("postgres", "drop publication supabase_realtime")
	tables = []string{"Hidden", "missing", "guarded"}
	fixes = visitTables().Fixes()
	if diff := cmp.Diff([]string{`create publication supabase_realtime for table "public"."Hidden", "public"."guarded"; -- row level security is off for "public"."Hidden": its changes go to every role that may select`}, fixes); diff != "" {
		t.Fatal(diff)
	}
	if err := doctor.Mend(t.Context(), db.URL("postgres"), fixes); err != nil {
		t.Fatal(err)
	}
	if left := visitTables().Fixes(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}

	// What is run is what is shown: a name that would steer a terminal is not.
	db.ExecAs("postgres", "create table public.\"a\x1b[8m\" (id bigint primary key)")
	tables = []string{"a\x1b[8m"}
	if left := visitTables().Fixes(); len(left) != 0 {
		t.Errorf("a name with control characters: %q", left)
	}
}
