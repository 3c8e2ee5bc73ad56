package project_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/project"
)

func TestNewMigration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Date(2026, 1, 2, 0, 59, 59, 0, time.FixedZone("", 3600)) // a day earlier in UTC
	var got []string
	for _, name := range []string{"first", "second", "a name's own.sql"} {
		path, err := project.NewMigration(dir, name, now, strings.NewReader("select '"+name+"'"))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, path)
	}
	want := []string{
		"supabase/migrations/20260101235959_first.sql", "supabase/migrations/20260102000000_second.sql",
		"supabase/migrations/20260102000001_a name's own.sql.sql",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	text, err := os.ReadFile(filepath.Join(dir, want[1]))
	if err != nil || string(text) != "select 'second'" {
		t.Errorf("%s: %q, %v", want[1], text, err)
	}
	for _, name := range []string{"", "a/b", `a\b`, "..\x00", "two\nlines"} {
		if _, err := project.NewMigration(dir, name, now, strings.NewReader("")); !errors.Is(err, sluice.ErrInvalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	p, _, err := project.Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	list, skipped, err := p.Migrations()
	if err != nil || len(list) != 3 || len(skipped) != 0 {
		t.Errorf("migrations: %v, skipped %v, %v", list, skipped, err)
	}
}

// TestHistory: reading the history of a database that has none makes none.
func TestHistory(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	load := func(archive string) *project.Project {
		t.Helper()
		p, _, err := project.Load(folder(t, archive), nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	of := func(p *project.Project) []project.MigrationState {
		t.Helper()
		list, err := p.History(t.Context(), db.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	up := func(p *project.Project, all bool) ([]string, error) {
		t.Helper()
		var said []string
		err := p.MigrateUp(t.Context(), db.URL("postgres"), all, func(line string) { said = append(said, line) })
		return said, err
	}
	p := load("-- supabase/migrations/2_b.sql --\ncreate table b ();\n-- supabase/migrations/10_j.sql --\ncreate table j ();\n")
	if diff := cmp.Diff([]project.MigrationState{{"2", true, false, false}, {"10", true, false, false}}, of(p)); diff != "" {
		t.Error(diff)
	}
	empty := load("-- supabase/seed.sql --\nselect 1;\n")
	if said, err := up(empty, false); err != nil || len(said) != 0 {
		t.Errorf("nothing to apply: %v, %v", said, err)
	}
	wantTexts(t, db, "select coalesce(to_regnamespace('supabase_migrations')::text, '')", "")

	// In the order of names as text.
	said, err := up(p, false)
	if diff := cmp.Diff([]string{"Applying migration 10_j.sql...", "Applying migration 2_b.sql..."}, said); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if diff := cmp.Diff([]project.MigrationState{{"2", true, true, false}, {"10", true, true, false}}, of(p)); diff != "" {
		t.Error(diff)
	}

	// Of what has gone apart, the error names everything, and nothing is applied.
	var he *project.HistoryError
	_, err = up(load("-- supabase/migrations/2_b.sql --\n\n-- supabase/migrations/3_c.sql --\ncreate table c ();\n"), true)
	if !errors.As(err, &he) || !he.Missing || !cmp.Equal(he.Migrations, []string{"10"}) || !errors.Is(err, sluice.ErrInvalid) {
		t.Errorf("a file that is gone: %v", err)
	}
	late := load("-- supabase/migrations/10_j.sql --\ncreate table j ();\n-- supabase/migrations/11_k.sql --\ncreate table k ();\n-- supabase/migrations/2_b.sql --\ncreate table b ( );\n-- supabase/migrations/3_c.sql --\ncreate table c ();\n")
	_, err = up(late, false)
	if !errors.As(err, &he) || he.Missing || !cmp.Equal(he.Migrations, []string{"supabase/migrations/11_k.sql"}) {
		t.Errorf("a file that comes late: %v", err)
	}
	wantTexts(t, db, "select coalesce(to_regclass('c')::text, '')", "")
	said, err = up(late, true)
	if diff := cmp.Diff([]string{"WARNING: " + project.ChangedText("2"), "Applying migration 11_k.sql...", "Applying migration 3_c.sql..."}, said); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}
