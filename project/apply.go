package project

import (
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
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
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
	for _, e := range entries { // sorted by name
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
		text, err := readScript(m.File)
		if err != nil {
			return err
		}
		file := filepath.Base(m.File)
		r.say("Applying migration " + file + "...")
		statements := splitStatements(text)
		record := recordStatement{
			sql:  "insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, $3)",
			args: []any{m.Version, m.Name, statements},
		}
		if err := r.run(ctx, file, statements, record); err != nil {
			return err
		}
	}
	return nil
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
	return string(text), nil
}

// runner runs scripts on one connection.
type runner struct {
	conn      *pgx.Conn
	say       func(string)
	available map[string]bool // extensions that the server offers
}

func connect(ctx context.Context, url sluice.Secret, say func(string)) (*runner, error) {
	cfg, err := pgx.ParseConfig(string(url))
	if err != nil {
		return nil, fmt.Errorf("parse database URL for migrations: %w", sluice.ErrInvalid)
	}
	cfg.RuntimeParams["application_name"] = "sluice migrations"
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Severity == "WARNING" {
			say("WARNING: " + n.Message)
		}
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, pg.Wrap(err, "connect for migrations")
	}
	r := &runner{conn: conn, say: say}
	if _, err := conn.PgConn().Exec(ctx, historyDDL).ReadAll(); err != nil {
		r.close()
		return nil, pg.Wrap(err, "make migration history")
	}
	rows, err := conn.Query(ctx, "select name from pg_catalog.pg_available_extensions")
	if err == nil {
		var names []string
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		r.available = make(map[string]bool, len(names))
		for _, n := range names {
			r.available[n] = true
		}
	}
	if err != nil {
		r.close()
		return nil, pg.Wrap(err, "list extensions")
	}
	return r, nil
}

func (r *runner) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = r.conn.Close(ctx)
}

// history returns the first column, and the second if there is one.
func (r *runner) history(ctx context.Context, sql string) (map[string]string, error) {
	rows, err := r.conn.Query(ctx, sql)
	if err != nil {
		return nil, pg.Wrap(err, "read migration history")
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		v := rows.RawValues()
		value := ""
		if len(v) > 1 {
			value = string(v[1])
		}
		out[string(v[0])] = value
	}
	return out, pg.Wrap(rows.Err(), "read migration history")
}

type recordStatement struct {
	sql  string
	args []any
}

// run sends RESET ALL, the statements and the record as one pipeline with a
// single sync: an implicit transaction, all or nothing, unless the script
// commits by itself.
func (r *runner) run(ctx context.Context, file string, statements []string, records ...recordStatement) error {
	if _, err := r.conn.Exec(ctx, "reset all"); err != nil {
		return pg.Wrap(err, "reset settings")
	}
	sent := make([]int, 0, len(statements)) // index of each statement sent
	pipe := r.conn.PgConn().StartPipeline(ctx)
	for i, s := range statements {
		if name := r.missingExtension(s); name != "" {
			r.say(fmt.Sprintf("WARNING: extension %s is not offered by this PostgreSQL; skipped (%s)", name, file))
			continue
		}
		pipe.SendQueryParams(s, nil, nil, nil, nil)
		sent = append(sent, i)
	}
	for _, rec := range records {
		args, err := textArgs(rec.args)
		if err != nil {
			pipe.Close()
			return err
		}
		pipe.SendQueryParams(rec.sql, args, nil, nil, nil)
	}
	n := 0
	err := pipe.Sync()
	for err == nil {
		var res any
		if res, err = pipe.GetResults(); err != nil {
			break
		}
		rr, ok := res.(*pgconn.ResultReader)
		if !ok {
			break
		}
		if _, err = rr.Close(); err == nil {
			n++
		}
	}
	if cerr := pipe.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		return nil
	}
	if n < len(sent) {
		return &ScriptError{File: file, Index: sent[n], Statement: statements[sent[n]], err: pg.Wrap(err, "")}
	}
	return pg.Wrap(err, "record %s", file)
}

// textArgs renders parameters in text format.
func textArgs(args []any) ([][]byte, error) {
	out := make([][]byte, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case string:
			out[i] = []byte(a)
		case []string:
			out[i] = []byte(arrayLiteral(a))
		default:
			return nil, fmt.Errorf("parameter %d has type %T: %w", i+1, a, sluice.ErrInvalid)
		}
	}
	return out, nil
}

func arrayLiteral(elems []string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, e := range elems {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(e))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

var createExtension = regexp.MustCompile(`(?i)^(?:\s|--[^\n]*\n|/\*(?:[^*]|\*[^/])*\*/)*create\s+extension\s+(?:if\s+not\s+exists\s+)?"?([A-Za-z0-9_-]+)"?`)

// supabaseExtensions are part of Supabase's images and not of PostgreSQL's
// packages. A migration that asks for one that is not there goes on without it:
// what uses it fails later, by name. Any other missing extension is an error.
var supabaseExtensions = []string{
	"pg_graphql", "pg_net", "pg_cron", "pgsodium", "supabase_vault", "pgjwt", "pgmq", "vector", "http", "pg_jsonschema", "pg_hashids",
	"wrappers", "index_advisor", "hypopg", "pg_tle", "pgaudit", "pg_stat_monitor", "plv8", "supautils", "pg_stat_statements",
}

// missingExtension returns the name of the extension that a statement creates
// and the server does not offer, when going on without it is right.
func (r *runner) missingExtension(statement string) string {
	m := createExtension.FindStringSubmatch(statement)
	if m == nil || r.available[m[1]] || !slices.Contains(supabaseExtensions, m[1]) {
		return ""
	}
	return m[1]
}

// ScriptError is a statement of a script that PostgreSQL refused.
type ScriptError struct {
	File      string
	Index     int // 0-based
	Statement string
	err       error
}

// Unwrap returns PostgreSQL's error.
func (e *ScriptError) Unwrap() error { return e.err }

// Error has the CLI's form: message, detail, number of the statement, and the
// statement with a caret at the place.
func (e *ScriptError) Error() string {
	var pe *pgconn.PgError
	if !errors.As(e.err, &pe) {
		return fmt.Sprintf("%s: statement %d: %v", e.File, e.Index, e.err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s (SQLSTATE %s)", e.File, pe.Severity, pe.Message, pe.Code)
	for _, more := range []string{pe.Detail, pe.Hint} {
		if more != "" {
			b.WriteString("\n" + more)
		}
	}
	if pe.Code == "42704" {
		b.WriteString("\nIf the type comes from an extension, write it with its schema: extensions.TYPE")
	}
	fmt.Fprintf(&b, "\nAt statement: %d\n%s", e.Index, caret(e.Statement, int(pe.Position)))
	return b.String()
}

// caret returns the statement up to the line that position (1-based, in
// characters) points at, with a caret below, and at most some lines before it.
func caret(statement string, position int) string {
	const context = 12
	lines := strings.Split(statement, "\n")
	if position <= 0 {
		if len(lines) > context {
			lines = append(lines[:context], "...")
		}
		return strings.Join(lines, "\n")
	}
	for i, line := range lines {
		n := len([]rune(line))
		if position <= n+1 {
			from := max(0, i-context)
			return strings.Join(lines[from:i+1], "\n") + "\n" + strings.Repeat(" ", position-1) + "^"
		}
		position -= n + 1
	}
	return statement
}
