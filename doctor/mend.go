package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// fix proposes SQL. A name with control characters in it would be run as
// another than is shown; who has such a table mends it by hand.
func (f Finding) fix(format string, args ...any) Finding {
	if sql := fmt.Sprintf(format, args...); !strings.ContainsFunc(sql, unicode.IsControl) {
		f.Fix = sql
	}
	return f
}

// Fixes are the statements that mend what can be mended in the database, each
// once, in the order of the findings.
func (r *Report) Fixes() []string {
	var out []string
	for _, f := range r.Findings {
		if f.Fix != "" && !slices.Contains(out, f.Fix) {
			out = append(out, f.Fix)
		}
	}
	return out
}

// Bounds of mending: a table that somebody holds is not waited for long, as
// everybody else would then wait behind the doctor.
const (
	mendTimeout = 30 * time.Second
	mendLock    = "set local lock_timeout = '5s'"
)

// Mend runs the fixes of a report in one transaction: all of them or, with an
// error, none. The login must own the tables and the publication.
func Mend(ctx context.Context, url sluice.Secret, fixes []string) error {
	pool, err := pg.Open(ctx, pg.Config{
		URL: url, Name: "sluice doctor", MaxConns: 1, StatementTimeout: mendTimeout, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return hidden(url, err)
	}
	defer pool.Close()
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{})
	if err != nil {
		return hidden(url, pg.Wrap(err, "connect"))
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // no effect after a commit
	for _, sql := range append([]string{mendLock}, fixes...) {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return hidden(url, pg.Wrap(err, "nothing was changed: %s", sql))
		}
	}
	return hidden(url, pg.Wrap(tx.Commit(ctx), "nothing may have been changed: commit"))
}

// hidden takes the secrets of url out of an error, which may hold what a server
// repeats.
func hidden(url sluice.Secret, err error) error {
	if err == nil {
		return nil
	}
	return &hiddenError{newRedactor(Config{DatabaseURL: url}).text(err.Error()), err}
}

type hiddenError struct {
	text string
	err  error
}

func (e *hiddenError) Error() string { return e.text }
func (e *hiddenError) Unwrap() error { return e.err }
