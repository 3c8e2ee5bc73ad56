package project

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/sluice-dev/sluice"
)

// maxScriptBytes bounds one migration or seed file.
const maxScriptBytes = 256 << 20

// Apply brings a fresh database to the project's state, in the CLI's order:
// roles.sql, migrations, seeds. What the history tables hold is skipped, so
// that an Apply that failed half way can be repeated. url logs in as role
// postgres; say receives one line of progress at a time.
func (p *Project) Apply(ctx context.Context, url sluice.Secret, say func(line string)) error {
	if !p.HasFolder {
		return nil
	}
	r, err := connect(ctx, url, say)
	if err != nil {
		return err
	}
	defer r.close()
	if err := p.applyRoles(ctx, r); err != nil {
		return err
	}
	if p.Config.DB.Migrations.Enabled {
		if err := p.applyMigrations(ctx, r); err != nil {
			return err
		}
	}
	if p.Config.DB.Seed.Enabled {
		return p.applySeeds(ctx, r)
	}
	return nil
}

// applyRoles runs supabase/roles.sql, which is not recorded anywhere.
func (p *Project) applyRoles(ctx context.Context, r *runner) error {
	text, err := readScript(p.path("roles.sql"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.say("Creating custom roles supabase/roles.sql...")
	return r.run(ctx, "supabase/roles.sql", splitStatements(text))
}

// A Migration is one file of supabase/migrations.
type Migration struct{ Version, Name, File string }

var (
	migrationName = regexp.MustCompile(`^([0-9]+)_(.*)\.sql$`)
	initSchema    = regexp.MustCompile(`^([0-9]{14})_init\.sql$`)
)

// Migrations lists the migration files in the order in which they run, which is
// that of their names as text, and a message for each file that is skipped.
func (p *Project) Migrations() (list []Migration, skipped []string, err error) {
	entries, err := os.ReadDir(p.path("migrations"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list migrations: %w", err)
	}
	byVersion := map[string]string{} // → file name
	for _, e := range entries {      // sorted by name
		if e.IsDir() {
			continue
		}
		name := e.Name()
		m := migrationName.FindStringSubmatch(name)
		if m == nil {
			skipped = append(skipped, fmt.Sprintf("Skipping migration %s... (file name must match pattern \"<timestamp>_name.sql\")", name))
			continue
		}
		if i := initSchema.FindStringSubmatch(name); i != nil && len(list) == 0 && i[1] < "20211209000000" {
			skipped = append(skipped, fmt.Sprintf("Skipping migration %s... (replace \"init\" with a different file name to apply this migration)", name))
			continue
		}
		list = append(list, Migration{Version: m[1], Name: m[2], File: p.path("migrations", name)})
		if other, ok := byVersion[m[1]]; ok {
			return nil, nil, fmt.Errorf("migrations %s and %s have the same version, %s, and it can be recorded once; rename one: %w", other, name, m[1], sluice.ErrInvalid)
		}
		byVersion[m[1]] = name
	}
	return list, skipped, nil
}

const historyDDL = `
set lock_timeout = '4s';
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
alter table supabase_migrations.schema_migrations add column if not exists statements text[];
alter table supabase_migrations.schema_migrations add column if not exists name text;
create table if not exists supabase_migrations.seed_files (path text not null primary key, hash text not null);
reset lock_timeout`

func (p *Project) applyMigrations(ctx context.Context, r *runner) error {
	list, skipped, err := p.Migrations()
	if err != nil {
		return err
	}
	for _, s := range skipped {
		r.say(s)
	}
	if len(list) == 0 {
		return nil
	}
	done, err := r.history(ctx, "select version from supabase_migrations.schema_migrations")
	if err != nil {
		return err
	}
	for _, m := range list {
		if _, ok := done[m.Version]; ok {
			continue
		}
		if err := applyMigration(ctx, r, m); err != nil {
			return err
		}
	}
	return nil
}

// applyMigration runs one file and records it, all or nothing.
func applyMigration(ctx context.Context, r *runner, m Migration) error {
	text, err := readScript(m.File)
	if err != nil {
		return err
	}
	file := filepath.Base(m.File)
	r.say("Applying migration " + file + "...")
	statements := splitStatements(text)
	return r.run(ctx, file, statements, recordStatement{
		sql:  "insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, $3)",
		args: []any{m.Version, m.Name, statements},
	})
}

// applySeeds runs the seed files that have not been run. A file that changed
// since gets its new hash recorded and is not run again: that is db reset's.
func (p *Project) applySeeds(ctx context.Context, r *runner) error {
	files, err := p.seedFiles(r.say)
	if err != nil || len(files) == 0 {
		return err
	}
	done, err := r.history(ctx, "select path, hash from supabase_migrations.seed_files")
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := readScript(file)
		if err != nil {
			return err
		}
		sum := sha256.Sum256([]byte(text))
		hash, path := hex.EncodeToString(sum[:]), rel(p.Dir, file)
		old, ran := done[path]
		if ran && old == hash {
			continue
		}
		var statements []string
		if ran {
			r.say("Updating seed hash to " + path + "...")
		} else {
			r.say("Seeding data from " + path + "...")
			statements = splitStatements(text)
		}
		record := recordStatement{
			sql:  "insert into supabase_migrations.seed_files (path, hash) values ($1, $2) on conflict (path) do update set hash = excluded.hash",
			args: []any{path, hash},
		}
		if err := r.run(ctx, path, statements, record); err != nil {
			return err
		}
	}
	return nil
}

func (p *Project) seedFiles(say func(string)) ([]string, error) {
	var out []string
	for _, pattern := range p.Config.DB.Seed.SQLPaths {
		found, err := filepath.Glob(p.Path(pattern))
		if err != nil {
			return nil, fmt.Errorf("db.seed.sql_paths %q: %w", pattern, err)
		}
		if len(found) == 0 {
			// The default file is optional.
			if pattern != "./seed.sql" {
				say("WARN: no files matched pattern: " + pattern)
			}
			continue
		}
		slices.Sort(found)
		for _, f := range found {
			if !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
	}
	return out, nil
}

func readScript(file string) (string, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("read script: %w", err)
	}
	if fi.Size() > maxScriptBytes {
		return "", fmt.Errorf("script %s has %d bytes, at most %d are read: %w", file, fi.Size(), maxScriptBytes, sluice.ErrInvalid)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read script: %w", err)
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return "", fmt.Errorf("script %s has a zero byte at %d; save it as UTF-8 text: %w", file, i, sluice.ErrInvalid)
	}
	return string(text), nil
}
