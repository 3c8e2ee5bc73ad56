package pg

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Errors of Migrate and Bootstrap that a person must act on. Both are of kind
// sluice.ErrConflict.
var (
	// ErrNewerDatabase: the database has had migrations that this binary does
	// not know. Going on could write rows that the newer form no longer reads.
	ErrNewerDatabase = fmt.Errorf("database is newer than this binary: %w", sluice.ErrConflict)
	// ErrChangedMigration: a migration that was applied differs from the file
	// of the same number in this binary, so the two describe different schemas.
	ErrChangedMigration = fmt.Errorf("applied migration was changed: %w", sluice.ErrConflict)
)

// Migrate brings Sluice's own objects in the database at url up to date: the
// schemas auth, storage and realtime, the publications and the internal schema
// sluice. It creates what is missing and leaves alone what is there, so it may
// run on a database that came from Supabase. Nothing to do costs two round
// trips, one of them for the partitions of the next days (see Maintain). Two
// runners wait for each other.
func Migrate(ctx context.Context, url sluice.Secret, log *slog.Logger) error {
	conn, err := connectForSetup(ctx, url, log)
	if err != nil {
		return err
	}
	defer closeSetup(conn)
	set, err := loadMigrations("migrations", migrationFiles)
	if err != nil {
		return err
	}
	if err := set.apply(ctx, conn, log); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, makePartitionsSQL)
	if SQLState(err) == lockNotAvailable {
		// A user's transaction holds realtime.messages. It could insert, so there
		// is a partition for today; Maintain makes the next ones.
		log.Warn("partitions of realtime.messages are made later", sluice.LogError, err)
		return nil
	}
	return Wrap(err, "make partitions of realtime.messages")
}

const (
	makePartitionsSQL = "select sluice.make_message_partitions()"
	dropPartitionsSQL = "select sluice.drop_message_partitions()"
	lockNotAvailable  = "55P03"
)

// Maintain does what a running server owes the database now and then, at least
// once a day: it makes the partitions of realtime.messages for yesterday to
// three days ahead and drops those of days before the last 72 hours. p logs in
// as the role that ran Migrate. It waits for a lock no longer than two seconds;
// after an error it is called again soon.
func Maintain(ctx context.Context, p *Pool) error {
	if _, err := p.Exec(ctx, makePartitionsSQL); err != nil {
		return Wrap(err, "make partitions of realtime.messages")
	}
	_, err := p.Exec(ctx, dropPartitionsSQL)
	return Wrap(err, "drop partitions of realtime.messages")
}

// A migration is one embedded file.
type migration struct {
	version  int
	name     string
	sql      string
	checksum string
}

// A migrationSet is a numbered sequence of files without gaps.
type migrationSet struct {
	name  string
	files []migration
}

// loadMigrations reads the .sql files of one embedded folder. Names have the
// form NNNN_name.sql and count from 0001 without gaps.
func loadMigrations(set string, files fs.FS) (migrationSet, error) {
	ms := migrationSet{name: set}
	names, err := fs.Glob(files, set+"/*.sql")
	if err != nil {
		return ms, fmt.Errorf("list migrations of set %q: %w", set, err)
	}
	slices.Sort(names)
	for i, name := range names {
		digits, rest, ok := strings.Cut(strings.TrimSuffix(path.Base(name), ".sql"), "_")
		v, err := strconv.Atoi(digits)
		if !ok || err != nil || len(digits) != 4 || v != i+1 {
			return ms, fmt.Errorf("migration file %q of set %q: want number %04d", name, set, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return ms, fmt.Errorf("read migration %q: %w", name, err)
		}
		sum := sha256.Sum256(text)
		ms.files = append(ms.files, migration{v, rest, string(text), hex.EncodeToString(sum[:])})
	}
	return ms, nil
}

type appliedMigration struct {
	version        int
	name, checksum string
}

// apply runs the files that the database has not had, each in one transaction
// together with its record.
func (ms migrationSet) apply(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	applied, err := ms.applied(ctx, conn)
	if err != nil {
		return err
	}
	todo, err := ms.pending(applied)
	if err != nil || len(todo) == 0 {
		return err
	}
	unlock, err := lockSetup(ctx, conn)
	if err != nil {
		return err
	}
	defer unlock()
	if err := makeRecords(ctx, conn); err != nil {
		return err
	}
	// Another runner may have been faster while this one waited.
	if applied, err = ms.applied(ctx, conn); err != nil {
		return err
	}
	if todo, err = ms.pending(applied); err != nil {
		return err
	}
	for _, m := range todo {
		start := time.Now()
		if err := ms.run(ctx, conn, m); err != nil {
			return err
		}
		log.Info("applied migration", "set", ms.name, "migration", fmt.Sprintf("%04d_%s", m.version, m.name), "took", time.Since(start).Round(time.Millisecond))
	}
	return nil
}

// applied reads the record. A database without one has had nothing.
func (ms migrationSet) applied(ctx context.Context, conn *pgx.Conn) ([]appliedMigration, error) {
	rows, err := conn.Query(ctx, `select version, name, checksum from sluice.migrations where "set" = $1 order by version`, ms.name)
	if err == nil {
		var out []appliedMigration
		out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a appliedMigration, err error) {
			return a, row.Scan(&a.version, &a.name, &a.checksum)
		})
		if err == nil {
			return out, nil
		}
	}
	switch SQLState(err) {
	case "42P01", "3F000": // no table, no schema
		return nil, nil
	}
	return nil, Wrap(err, "read applied migrations of set %q", ms.name)
}

// pending compares the record with the files and returns what is left to run.
func (ms migrationSet) pending(applied []appliedMigration) ([]migration, error) {
	for i, a := range applied {
		if a.version > len(ms.files) {
			return nil, fmt.Errorf("set %q: the database has migration %04d_%s, this binary knows %d; nothing was changed, so that no data is written in an old form. Start the newer Sluice, or restore a backup: %w",
				ms.name, a.version, a.name, len(ms.files), ErrNewerDatabase)
		}
		if a.version != i+1 {
			return nil, fmt.Errorf("set %q: the record lacks migration %04d but has %04d; nothing was changed: %w", ms.name, i+1, a.version, ErrChangedMigration)
		}
		if f := ms.files[i]; f.checksum != a.checksum {
			return nil, fmt.Errorf("set %q: migration %04d_%s was applied with checksum %.12s, this binary has %.12s; nothing was changed. Use the Sluice that applied it, or a release: %w",
				ms.name, a.version, a.name, a.checksum, f.checksum, ErrChangedMigration)
		}
	}
	return ms.files[len(applied):], nil
}

// run executes one file and its record as one transaction.
func (ms migrationSet) run(ctx context.Context, conn *pgx.Conn, m migration) error {
	return inTx(ctx, conn, func(tx pgx.Tx) error {
		if err := execScript(ctx, conn, m.sql); err != nil {
			return Wrap(err, "migration %s/%04d_%s%s", ms.name, m.version, m.name, place(err, m.sql))
		}
		_, err := tx.Exec(ctx, `insert into sluice.migrations ("set", version, name, checksum) values ($1, $2, $3, $4)`,
			ms.name, m.version, m.name, m.checksum)
		return Wrap(err, "record migration %s/%04d_%s", ms.name, m.version, m.name)
	})
}

// place tells the line of a script that a server error points at.
func place(err error, sql string) string {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Position <= 0 {
		return ""
	}
	// Position counts characters from 1.
	line, n := 1, int32(1)
	for _, r := range sql {
		if n >= pe.Position {
			break
		}
		if r == '\n' {
			line++
		}
		n++
	}
	return fmt.Sprintf(" line %d", line)
}

// connectForSetup opens the one connection that Bootstrap or Migrate uses.
func connectForSetup(ctx context.Context, url sluice.Secret, log *slog.Logger) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(string(url))
	if err != nil {
		// The parser's error may quote the string, password included.
		return nil, fmt.Errorf("parse database URL for setup: %w", sluice.ErrInvalid)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	// The role's own settings must not change what the files mean.
	for k, v := range map[string]string{
		"application_name":    "sluice setup",
		"search_path":         "pg_catalog",
		"client_min_messages": "warning",
		"statement_timeout":   "0",
		"lock_timeout":        "60s",
		"timezone":            "UTC",
	} {
		cfg.RuntimeParams[k] = v
	}
	// One statement each: preparing would cost a round trip for nothing.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	// The files leave out what the login may not do, and warn.
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Severity == "WARNING" {
			log.Warn("setup of the database: "+n.Message, "hint", n.Hint)
		}
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, Wrap(err, "connect for setup")
	}
	return conn, nil
}

func closeSetup(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing is open on it
}

// setupLock is the key of the advisory lock that setups of one database share.
const setupLock = 0x736c75696365 // "sluice"

// lockSetup waits until no other setup runs in this database.
func lockSetup(ctx context.Context, conn *pgx.Conn) (unlock func(), err error) {
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1)", int64(setupLock)); err != nil {
		return nil, Wrap(err, "wait for another Sluice that sets up this database")
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		// If it fails the connection is broken and the lock gone with it.
		_, _ = conn.Exec(ctx, "select pg_advisory_unlock($1)", int64(setupLock))
	}, nil
}

// makeRecords creates the table that records what was applied.
func makeRecords(ctx context.Context, conn *pgx.Conn) error {
	err := execScript(ctx, conn, `
begin;
create schema if not exists sluice;
create table if not exists sluice.migrations (
	"set"      text not null,
	version    integer not null,
	name       text not null,
	checksum   text not null,
	applied_at timestamptz not null default now(),
	primary key ("set", version)
);
create table if not exists sluice.settings (
	name  text primary key,
	value text not null
);
commit;`)
	return Wrap(err, "create schema sluice")
}

func execScript(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

func inTx(ctx context.Context, conn *pgx.Conn, fn func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, conn, fn)
}
