package project

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// versionLayout is the version of a migration that is made now, in UTC.
const versionLayout = "20060102150405"

// NewMigration makes the file of a migration below dir, supabase/migrations and
// all, with what sql holds, and returns its path from dir. A second that is
// taken is stepped over: two files of one version cannot be applied.
func NewMigration(dir, name string, now time.Time, sql io.Reader) (string, error) {
	if name == "" || strings.ContainsAny(name, `/\`) || strings.ContainsFunc(name, unicode.IsControl) {
		return "", fmt.Errorf("%q is no name for a migration: it becomes a part of the file's name: %w", name, sluice.ErrInvalid)
	}
	text, err := io.ReadAll(io.LimitReader(sql, maxScriptBytes+1))
	if err != nil {
		return "", fmt.Errorf("read the migration's SQL: %w", err)
	}
	if len(text) > maxScriptBytes {
		return "", fmt.Errorf("the migration's SQL has more than %d bytes: %w", maxScriptBytes, sluice.ErrInvalid)
	}
	folder := filepath.Join(dir, "supabase", "migrations")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("make the folder of migrations: %w", err)
	}
	taken, err := versionsIn(folder)
	if err != nil {
		return "", err
	}
	at := now.UTC()
	for taken[at.Format(versionLayout)] {
		at = at.Add(time.Second)
	}
	file := filepath.Join(folder, at.Format(versionLayout)+"_"+name+".sql")
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", fmt.Errorf("make the migration: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("write the migration: %w", err)
	}
	return rel(dir, file), nil
}

// versionsIn are the versions of the files in a folder.
func versionsIn(folder string) (map[string]bool, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	out := map[string]bool{}
	for _, e := range entries {
		if m := migrationName.FindStringSubmatch(e.Name()); m != nil {
			out[m[1]] = true
		}
	}
	return out, nil
}

// MigrationState is one migration of the folder, of the database's history, or
// of both.
type MigrationState struct {
	Version string
	Local   bool
	Applied bool
	// Changed tells that the file is not any more what was applied.
	Changed bool
}

// History compares the folder with what the database at url has recorded, in the
// order of versions. It only reads.
func (p *Project) History(ctx context.Context, url sluice.Secret) ([]MigrationState, error) {
	list, _, err := p.Migrations()
	if err != nil {
		return nil, err
	}
	r, err := dial(ctx, url, func(string) {})
	if err != nil {
		return nil, err
	}
	defer r.close()
	done, err := r.applied(ctx)
	if err != nil {
		return nil, err
	}
	changed, err := r.changed(ctx, list, done)
	if err != nil {
		return nil, err
	}
	var out []MigrationState
	for _, m := range list {
		_, applied := done[m.Version]
		out = append(out, MigrationState{m.Version, true, applied, slices.Contains(changed, m.Version)})
		delete(done, m.Version)
	}
	for version := range done {
		out = append(out, MigrationState{version, false, true, false})
	}
	slices.SortFunc(out, func(a, b MigrationState) int { return compareVersions(a.Version, b.Version) })
	return out, nil
}

// ChangedText says what to do about a migration that was changed after it was applied.
func ChangedText(version string) string {
	return "migration " + version + " was changed after it was applied: the database has it as it was. Write a new migration, or make the database anew with: sluice db reset"
}

// changed returns the versions of files whose statements are not those that were
// recorded. Records without statements, which older tools made, tell nothing.
func (r *runner) changed(ctx context.Context, list []Migration, done map[string]string) ([]string, error) {
	if len(done) == 0 {
		return nil, nil
	}
	recorded, err := r.history(ctx, "select version, to_json(statements)::text from supabase_migrations.schema_migrations where statements is not null")
	if pg.SQLState(err) == "42703" { // the column is younger than the table
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range list {
		var old []string
		if text, ok := recorded[m.Version]; !ok || json.Unmarshal([]byte(text), &old) != nil {
			continue
		}
		text, err := readScript(m.File)
		if err != nil {
			return nil, err
		}
		if !slices.Equal(old, splitStatements(text)) {
			out = append(out, m.Version)
		}
	}
	return out, nil
}

// compareVersions orders digits by their number.
func compareVersions(a, b string) int {
	x, y := strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(len(x)-len(y), strings.Compare(x, y), strings.Compare(a, b))
}

// MigrateUp applies the migrations that the database at url has not recorded.
// The error is a *HistoryError when folder and history have gone apart; then
// nothing is applied. all applies also what stands before a recorded one.
func (p *Project) MigrateUp(ctx context.Context, url sluice.Secret, all bool, say func(line string)) error {
	list, skipped, err := p.Migrations()
	if err != nil {
		return err
	}
	for _, s := range skipped {
		say(s)
	}
	r, err := dial(ctx, url, say)
	if err != nil {
		return err
	}
	defer r.close()
	done, err := r.applied(ctx)
	if err != nil {
		return err
	}
	changed, err := r.changed(ctx, list, done)
	if err != nil {
		return err
	}
	for _, version := range changed {
		say("WARNING: " + ChangedText(version))
	}
	pending, err := pendingOf(list, done, all)
	if err != nil || len(pending) == 0 {
		return err
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	for _, m := range pending {
		if err := applyMigration(ctx, r, m); err != nil {
			return err
		}
	}
	return nil
}

// pendingOf are the migrations to apply, in their order.
func pendingOf(list []Migration, done map[string]string, all bool) ([]Migration, error) {
	missing := &HistoryError{Missing: true}
	for version := range done {
		if !slices.ContainsFunc(list, func(m Migration) bool { return m.Version == version }) {
			missing.Migrations = append(missing.Migrations, version)
		}
	}
	if len(missing.Migrations) > 0 {
		slices.SortFunc(missing.Migrations, compareVersions)
		return nil, missing
	}
	var pending []Migration
	early := &HistoryError{} // pending before one that is recorded
	for _, m := range list {
		if _, recorded := done[m.Version]; !recorded {
			pending = append(pending, m)
			continue
		}
		early.Migrations = early.Migrations[:0]
		for _, before := range pending {
			early.Migrations = append(early.Migrations, "supabase/migrations/"+filepath.Base(before.File))
		}
	}
	if len(early.Migrations) > 0 && !all {
		return nil, early
	}
	return pending, nil
}

// HistoryError says that the folder and the database's history have gone apart.
// Its kind is sluice.ErrInvalid.
type HistoryError struct {
	// Missing tells that Migrations are versions that the database has recorded
	// and the folder lacks. Else they are files that stand before a recorded one.
	Missing    bool
	Migrations []string
}

// Unwrap returns the error's kind.
func (e *HistoryError) Unwrap() error { return sluice.ErrInvalid }

// Error has the CLI's words.
func (e *HistoryError) Error() string {
	if e.Missing {
		return "Remote migration versions not found in local migrations directory.\n" +
			"The database has applied: " + strings.Join(e.Migrations, ", ") + "\n" +
			"Bring the files back (is the git checkout up to date?), or make the database anew with: sluice db reset"
	}
	return "Found local migration files to be inserted before the last migration on remote database.\n" +
		"Rerun the command with --include-all flag to apply these migrations:\n" + strings.Join(e.Migrations, "\n")
}

// applied is the recorded history. A database that has none yet has applied
// nothing.
func (r *runner) applied(ctx context.Context) (map[string]string, error) {
	there, err := r.history(ctx, "select 1 where to_regclass('supabase_migrations.schema_migrations') is not null")
	if err != nil || len(there) == 0 {
		return map[string]string{}, err
	}
	return r.history(ctx, "select version from supabase_migrations.schema_migrations")
}
