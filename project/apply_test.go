package project_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/project"
)

// apply loads a folder and applies it to db. It returns the lines of progress.
func apply(t testing.TB, db *pgtest.DB, dir string) ([]string, error) {
	t.Helper()
	p, _, err := project.Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	err = p.Apply(t.Context(), db.URL("postgres"), func(line string) { said = append(said, line) })
	return said, err
}

// mustApply is apply for an archive that has no mistakes.
func mustApply(t testing.TB, db *pgtest.DB, archive string) []string {
	t.Helper()
	said, err := apply(t, db, folder(t, archive))
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return said
}

// texts returns the first column of a query.
func texts(t testing.TB, db *pgtest.DB, sql string) []string {
	t.Helper()
	rows, err := db.Admin().Query(t.Context(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func wantTexts(t testing.TB, db *pgtest.DB, sql string, want ...string) {
	t.Helper()
	if got := texts(t, db, sql); !cmp.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", sql, got, want)
	}
}

// TestApply runs everything in the CLI's order, as role postgres, and records
// it in the CLI's tables.
func TestApply(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	role := "lead_" + db.Name // roles are shared by all databases
	dir := folder(t, `
-- supabase/config.toml --
[db.seed]
sql_paths = ["./seeds/*.sql", "./seeds/b.sql", "./none/*.sql", "./extra.sql"]
-- supabase/roles.sql --
create role `+role+`;
grant `+role+` to postgres;
-- supabase/migrations/20260102000000_second.sql --
insert into log values ('second ' || current_user);
-- supabase/migrations/20260101000000_first step.sql --
create table log (line text);
grant select on log to `+role+`;
set search_path = nowhere;
-- supabase/migrations/notes.txt --
-- supabase/migrations/first.sql --
-- supabase/migrations/20260103000000.sql --
-- supabase/seeds/b.sql --
insert into log values ('seed b');
-- supabase/seeds/a.sql --
insert into log values ('seed a');
-- supabase/extra.sql --
insert into log values ('extra; seed')
`)
	said, err := apply(t, db, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Exec("drop owned by " + role + "; drop role " + role) })
	want := []string{
		"Creating custom roles supabase/roles.sql...",
		`Skipping migration 20260103000000.sql... (file name must match pattern "<timestamp>_name.sql")`,
		`Skipping migration first.sql... (file name must match pattern "<timestamp>_name.sql")`,
		`Skipping migration notes.txt... (file name must match pattern "<timestamp>_name.sql")`,
		"Applying migration 20260101000000_first step.sql...",
		"Applying migration 20260102000000_second.sql...",
		"WARN: no files matched pattern: ./none/*.sql",
		"Seeding data from supabase/seeds/a.sql...",
		"Seeding data from supabase/seeds/b.sql...",
		"Seeding data from supabase/extra.sql...",
	}
	if d := cmp.Diff(want, said); d != "" {
		t.Errorf("progress: %s", d)
	}
	wantTexts(t, db, "select line from log", "second postgres", "seed a", "seed b", "extra; seed")
	wantTexts(t, db, "select version || '|' || name || '|' || cardinality(statements) from supabase_migrations.schema_migrations order by 1",
		"20260101000000|first step|3", "20260102000000|second|1")
	wantTexts(t, db, "select statements[3] from supabase_migrations.schema_migrations where name = 'first step'", "set search_path = nowhere")
	wantTexts(t, db, "select path from supabase_migrations.seed_files order by 1", "supabase/extra.sql", "supabase/seeds/a.sql", "supabase/seeds/b.sql")

	// Again: nothing but the roles, which are not recorded. A seed that changed
	// since is noted and not run.
	for name, text := range map[string]string{"roles.sql": "", "seeds/a.sql": "insert into log values ('changed');"} {
		if err := os.WriteFile(filepath.Join(dir, "supabase", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	said, err = apply(t, db, dir)
	if err != nil {
		t.Fatal(err)
	}
	want = append(append([]string{want[0]}, want[1:4]...), want[6], "Updating seed hash to supabase/seeds/a.sql...")
	if d := cmp.Diff(want, said); d != "" {
		t.Errorf("progress of the second time: %s", d)
	}
	wantTexts(t, db, "select count(*)::text from log", "4")
}

// TestApplySwitchedOff leaves out what the configuration switches off, and a
// project without a folder.
func TestApplySwitchedOff(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	if said := mustApply(t, db, ""); len(said) > 0 {
		t.Errorf("without a folder: %q", said)
	}
	said := mustApply(t, db, `
-- supabase/config.toml --
[db.migrations]
enabled = false
[db.seed]
enabled = false
-- supabase/migrations/1_a.sql --
create table a ();
-- supabase/seed.sql --
select 1 / 0;
`)
	if len(said) > 0 {
		t.Errorf("switched off: %q", said)
	}
	wantTexts(t, db, "select (to_regclass('a') is null)::text", "true")
}

// TestMigrationFails: the error names file, statement and place, and nothing of
// the file stays, its record included. What came before it does, and the next
// time goes on there.
func TestMigrationFails(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	dir := folder(t, `
-- supabase/migrations/1_good.sql --
create table good ();
-- supabase/migrations/2_bad.sql --
create table half ();
-- a comment; with a semicolon
create table
  worse (id nothing);
create table never ();
-- supabase/migrations/3_later.sql --
create table later ();
`)
	said, err := apply(t, db, dir)
	want := `2_bad.sql: ERROR: type "nothing" does not exist (SQLSTATE 42704)
If the type comes from an extension, write it with its schema: extensions.TYPE
At statement: 1
-- a comment; with a semicolon
create table
  worse (id nothing);
            ^
Nothing of this file was applied.`
	want = strings.Replace(want, "nothing);\n", "nothing)\n", 1)
	if err == nil || err.Error() != want {
		t.Errorf("error:\n%v\nwant:\n%s", err, want)
	}
	var se *project.ScriptError
	if !errors.As(err, &se) || se.File != "2_bad.sql" || se.Index != 1 || se.Kept {
		t.Errorf("error %#v", se)
	}
	if d := cmp.Diff([]string{"Applying migration 1_good.sql...", "Applying migration 2_bad.sql..."}, said); d != "" {
		t.Error(d)
	}
	wantTexts(t, db, "select relname::text from pg_class where relname in ('good', 'half', 'worse', 'never', 'later')", "good")
	wantTexts(t, db, "select version from supabase_migrations.schema_migrations", "1")

	if err := os.WriteFile(filepath.Join(dir, "supabase", "migrations", "2_bad.sql"), []byte("create table half ();"), 0o644); err != nil {
		t.Fatal(err)
	}
	if said, err = apply(t, db, dir); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"Applying migration 2_bad.sql...", "Applying migration 3_later.sql..."}, said); d != "" {
		t.Error(d)
	}
}

// TestScriptErrors holds the texts of what goes wrong inside a script.
func TestScriptErrors(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	mustApply(t, db, "-- supabase/migrations/0_t.sql --\ncreate table t (id int primary key);")
	for name, tt := range map[string]struct {
		script string
		want   []string
		kept   bool
	}{
		"constraint": {
			"insert into t values (1);\ninsert into t values (1);",
			[]string{"duplicate key value", "Key (id)=(1) already exists.", "At statement: 1\ninsert into t values (1)\nNothing of"},
			false,
		},
		"syntax": {"select 1;\nselct 2;", []string{`syntax error at or near "selct"`, "At statement: 1\nselct 2\n^\n"}, false},
		"meta": {
			"\\restrict abc\nselect 1;",
			[]string{`syntax error at or near "\"`, "At statement: 0"},
			false,
		},
		"copy from stdin": {
			"select 1;\ncopy t from stdin;\n1\n2\n\\.\nselect 2;",
			[]string{"COPY with stdin", "INSERT", "At statement: 1\ncopy t from stdin"},
			false,
		},
		"copy to stdout": {"copy t to stdout;", []string{"COPY with stdin or stdout", "At statement: 0"}, false},
		"own transaction": {
			"begin;\ncreate table kept ();\ncommit;\nselect 1 / 0;",
			[]string{"division by zero", "At statement: 3"},
			true,
		},
		"index in transaction": {
			"create index concurrently on t (id);\nselect 1;\ncreate index concurrently on t (id);",
			[]string{"CREATE INDEX CONCURRENTLY", "At statement: 2", "a file of its own"},
			true,
		},
		"unclosed quote": {"select 1; select 'a; select 2;", []string{"unterminated quoted string", "At statement: 1"}, false},
		"characters":     {"select 'äöü€' || nothing;", []string{"\n" + strings.Repeat(" ", 17) + "^\n"}, false},
		"permission":     {"create role x superuser;", []string{"must be superuser", "At statement: 0"}, false},
		"binary":         {"select '\xff';", []string{"invalid byte sequence"}, false},
		"zero byte":      {"s\x00e\x00", []string{"zero byte at 1", "UTF-8"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, "")
			file := filepath.Join(dir, "supabase", "migrations", "1_x.sql")
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(tt.script), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := apply(t, db, dir)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range append(tt.want, "1_x.sql") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in the error:\n%v", w, err)
				}
			}
			if got := !strings.Contains(err.Error(), "Nothing of this file was applied"); got != tt.kept {
				t.Errorf("a part of the script may have stayed: %v, want %v\n%v", got, tt.kept, err)
			}
			wantTexts(t, db, "select version from supabase_migrations.schema_migrations", "0")
		})
	}
	wantTexts(t, db, "select (to_regclass('kept') is not null)::text", "true")
}

// TestScriptForms: what editors and dumps put into files works.
func TestScriptForms(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	mustApply(t, db, strings.ReplaceAll(`
-- supabase/migrations/1_mark.sql --
`+"\ufeff"+`create table t (id int, body text);
-- supabase/migrations/2_crlf.sql --
create function f() returns int language plpgsql as $body$%
declare n int := 1; -- it's%
begin%
  n := n + 1; return n;%
end $body$;%
insert into t values (f(), 'a;%
b');%
-- supabase/migrations/3_empty.sql --
-- supabase/migrations/4_comment.sql --
-- nothing yet;
-- supabase/migrations/5_dollar.sql --
do $$ begin insert into t values (5, 'do;'); end $$;
do $a$ begin execute $x$ insert into t values (55, $$;$$) $x$; end $a$
-- supabase/migrations/6_own.sql --
insert into t values (6, 'a');
begin;
insert into t values (6, 'b');
commit;
insert into t values (6, 'c');
-- supabase/migrations/7_atomic.sql --
create function g(a int) returns int language sql begin atomic select case when a > 0 then a end; end;
create rule r as on delete to t do also (select 1; select 2);
-- supabase/migrations/8_dump.sql --
SET statement_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);
CREATE EXTENSION IF NOT EXISTS "pg_net" WITH SCHEMA "extensions";
CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA "extensions";
ALTER PUBLICATION "supabase_realtime" OWNER TO "postgres";
ALTER PUBLICATION "supabase_realtime" ADD TABLE "public"."t";
ALTER DEFAULT PRIVILEGES FOR ROLE "postgres" IN SCHEMA "public" GRANT ALL ON TABLES TO "anon";
RESET ALL;
-- supabase/migrations/9_after.sql --
insert into t values (9, current_setting('search_path'));
`, "%\n", "\r\n"))
	wantTexts(t, db, "select id || ' ' || replace(body, E'\\r\\n', '|') from t order by id, body",
		"2 a;|b", "5 do;", "6 a", "6 b", "6 c", "9 \"$user\", public, extensions", "55 ;")
	wantTexts(t, db, "select version || ' ' || coalesce(cardinality(statements), 0) from supabase_migrations.schema_migrations order by 1",
		"1 1", "2 2", "3 0", "4 0", "5 2", "6 5", "7 2", "8 8", "9 1")
}

// TestHugeScript sends a large file in one transaction, without waiting for the
// answers of one statement before the next.
func TestHugeScript(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	dir := folder(t, "-- supabase/migrations/1_t.sql --\ncreate table t (id int, body text);")
	var b strings.Builder
	const rows = 20000
	for i := range rows {
		fmt.Fprintf(&b, "insert into t values (%d, 'row; %d');\n", i, i)
	}
	fmt.Fprintf(&b, "insert into t values (-1, '%s');\n", strings.Repeat("x", 4<<20))
	if err := os.WriteFile(filepath.Join(dir, "supabase", "seed.sql"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := apply(t, db, dir); err != nil {
		t.Fatal(err)
	}
	wantTexts(t, db, "select count(*) || ' ' || max(length(body)) from t", fmt.Sprintf("%d %d", rows+1, 4<<20))
	// Too large is refused by its size alone.
	file := filepath.Join(dir, "supabase", "migrations", "2_big.sql")
	f, err := os.Create(file)
	if err == nil {
		err = errors.Join(f.Truncate(1<<30), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := apply(t, db, dir); !errors.Is(err, sluice.ErrInvalid) || !strings.Contains(err.Error(), "2_big.sql has 1073741824 bytes") {
		t.Errorf("error %v", err)
	}
}

// TestDuplicateVersions are found before anything runs: the second file would
// never be applied.
func TestDuplicateVersions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	_, err := apply(t, db, folder(t, `
-- supabase/migrations/1_a.sql --
create table a ();
-- supabase/migrations/1_b.sql --
create table b ();
`))
	if !errors.Is(err, sluice.ErrInvalid) || !strings.Contains(err.Error(), "1_a.sql and 1_b.sql have the same version, 1,") {
		t.Errorf("error %v", err)
	}
	wantTexts(t, db, "select (to_regclass('a') is null)::text", "true")
}

// TestHistoryOfCLI goes on from what an early version of the CLI recorded.
func TestHistoryOfCLI(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	// The table as early versions of the CLI made it.
	db.ExecAs("postgres", `create schema supabase_migrations;
create table supabase_migrations.schema_migrations (version text not null primary key);
insert into supabase_migrations.schema_migrations values ('1')`)
	said := mustApply(t, db, `
-- supabase/migrations/1_a.sql --
select 1 / 0;
-- supabase/migrations/2_b.sql --
create table b ();
`)
	if d := cmp.Diff([]string{"Applying migration 2_b.sql..."}, said); d != "" {
		t.Error(d)
	}
	wantTexts(t, db, "select version || coalesce(name, '-') from supabase_migrations.schema_migrations order by 1", "1-", "2b")
}

// TestSeedFails: seeds that ran stay recorded, the failing one does not.
func TestSeedFails(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	_, err := apply(t, db, folder(t, `
-- supabase/config.toml --
[db.seed]
sql_paths = ["seeds/*.sql"]
-- supabase/migrations/1_t.sql --
create table t (id int primary key);
-- supabase/seeds/1.sql --
insert into t values (1);
-- supabase/seeds/2.sql --
insert into t values (2);
insert into t values (1);
`))
	if err == nil || !strings.Contains(err.Error(), "supabase/seeds/2.sql: ERROR: duplicate key") || !strings.Contains(err.Error(), "At statement: 1") {
		t.Errorf("error %v", err)
	}
	wantTexts(t, db, "select id::text from t", "1")
	wantTexts(t, db, "select path from supabase_migrations.seed_files", "supabase/seeds/1.sql")
}

// TestSeedOfDump: data as `supabase db dump --data-only` writes it, rows ahead of
// those that they refer to, and the settings around it.
func TestSeedOfDump(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	mustApply(t, db, `
-- supabase/migrations/1_t.sql --
create table parent (id int primary key);
create table child (id int references parent (id));
-- supabase/seed.sql --
SET session_replication_role = replica;
SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);
SET row_security = off;
INSERT INTO "public"."child" ("id") VALUES (7);
INSERT INTO "public"."parent" ("id") VALUES (7);
RESET ALL;
`)
	wantTexts(t, db, "select child.id::text from child join parent using (id)", "7")
}

// TestMissingExtensions: those of Supabase's images are skipped with a warning,
// any other is an error.
func TestMissingExtensions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	said, err := apply(t, db, folder(t, `
-- supabase/migrations/1_a.sql --
/* why */ create extension if not exists "pgsodium";
create table a ();
-- supabase/migrations/2_b.sql --
create extension no_such_extension;
`))
	if err == nil || !strings.Contains(err.Error(), `2_b.sql: ERROR: extension "no_such_extension" is not available`) {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(strings.Join(said, "\n"), "WARNING: extension pgsodium is not offered by this PostgreSQL; skipped (1_a.sql)") {
		t.Errorf("progress %q", said)
	}
	wantTexts(t, db, "select statements[1] from supabase_migrations.schema_migrations", `/* why */ create extension if not exists "pgsodium"`)
}

// TestUnreadable: what cannot be read is named with its path and the reason.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for name, tt := range map[string]struct {
		make string // a folder that stands where a file is wanted
		want string
	}{
		"roles":      {"supabase/roles.sql", "roles.sql"},
		"migration":  {"supabase/migrations/1_a.sql", ""},
		"seed":       {"supabase/seed.sql", "seed.sql"},
		"migrations": {"", "migrations"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, "-- supabase/config.toml --\n")
			if tt.make == "" {
				if err := os.WriteFile(filepath.Join(dir, "supabase", "migrations"), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if err := os.MkdirAll(filepath.Join(dir, tt.make), 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := apply(t, db, dir)
			if tt.want == "" {
				if err != nil { // sub-directories are ignored, whatever their name
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}
