package auth

import (
	"context"
	"embed"
	"io/fs"
	"strings"

	"github.com/sluice-dev/sluice/pg"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

// statements are the files of sql/ by name. pgx prepares each once on every
// connection.
var statements = func() map[string]string {
	files, err := fs.Glob(sqlFiles, "sql/*.sql")
	if err != nil {
		panic(err) // a constant pattern
	}
	out := make(map[string]string, len(files))
	for _, file := range files {
		text, err := sqlFiles.ReadFile(file)
		if err != nil {
			panic(err) // embedded
		}
		out[strings.TrimSuffix(strings.TrimPrefix(file, "sql/"), ".sql")] = string(text)
	}
	return out
}()

// sql returns a statement. Its name is a constant of the caller; a test asks for
// every name that stands in the code.
func sql(name string) string {
	text, found := statements[name]
	if !found {
		panic("auth: there is no statement " + name)
	}
	return text
}

// inTx runs fn in one transaction, which commits when fn returns nil. All that
// writes goes through it: triggers and hooks of the project run in what they find
// in the session, and must not find what one of another user has left there.
func (s *Server) inTx(ctx context.Context, fn func(tx pg.Tx) error) error {
	return s.cfg.Pool.InTx(ctx, func(_ context.Context, tx pg.Tx) error { return fn(tx) })
}

// exec runs a statement whose rows nobody reads.
func exec(ctx context.Context, tx pg.Tx, name string, args ...any) error {
	_, err := tx.Exec(ctx, sql(name), args...)
	return pg.Wrap(err, "%s", name)
}

// changed runs a statement and reports whether it touched a row.
func changed(ctx context.Context, tx pg.Tx, name string, args ...any) (bool, error) {
	tag, err := tx.Exec(ctx, sql(name), args...)
	return tag.RowsAffected() > 0, pg.Wrap(err, "%s", name)
}
