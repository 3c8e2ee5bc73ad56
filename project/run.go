package project

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// runner runs scripts on one connection.
type runner struct {
	conn      *pgx.Conn
	say       func(string)
	available map[string]bool // extensions that the server offers
}

// connect returns a runner that is ready for scripts.
func connect(ctx context.Context, url sluice.Secret, say func(string)) (*runner, error) {
	r, err := dial(ctx, url, say)
	if err != nil {
		return nil, err
	}
	if err := r.prepare(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// dial connects and changes nothing.
func dial(ctx context.Context, url sluice.Secret, say func(string)) (*runner, error) {
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
	return &runner{conn: conn, say: say}, nil
}

// prepare makes the history's tables and lists the server's extensions.
func (r *runner) prepare(ctx context.Context) error {
	if _, err := r.conn.PgConn().Exec(ctx, historyDDL).ReadAll(); err != nil {
		return pg.Wrap(err, "make migration history")
	}
	rows, err := r.conn.Query(ctx, "select name from pg_catalog.pg_available_extensions")
	if err != nil {
		return pg.Wrap(err, "list extensions")
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	r.available = make(map[string]bool, len(names))
	for _, n := range names {
		r.available[n] = true
	}
	return pg.Wrap(err, "list extensions")
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
	for i, s := range statements {
		if copyFromClient.MatchString(s) {
			return &ScriptError{File: file, Index: i, Statement: s, err: errCopy}
		}
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
	n, kept := 0, false
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
			kept = kept || n < len(sent) && endsTransaction.MatchString(statements[sent[n]])
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
		var pe *pgconn.PgError
		unknown := !errors.As(err, &pe) // the connection broke
		return &ScriptError{File: file, Index: sent[n], Statement: statements[sent[n]], Kept: kept || unknown, err: pg.Wrap(err, "")}
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

// blanks matches what may stand before a statement's first word.
const blanks = `^(?:\s|--[^\n]*\n|/\*(?:[^*]|\*[^/])*\*/)*`

// copyFromClient tells a COPY whose rows come from, or go to, the client.
var copyFromClient = regexp.MustCompile(`(?is)` + blanks + `copy\b.*\b(?:from\s+stdin|to\s+stdout)\b`)

// errCopy is found before anything is sent: in a pipeline the server would
// answer in a way that ends it.
var errCopy = fmt.Errorf("COPY with stdin or stdout needs a client such as psql, and scripts are sent without one; write INSERT statements (pg_dump --inserts): %w", sluice.ErrInvalid)

var createExtension = regexp.MustCompile(`(?i)` + blanks + `create\s+extension\s+(?:if\s+not\s+exists\s+)?"?([A-Za-z0-9_-]+)"?`)

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
