package pg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
)

// Wrap adds what was being done and the error's kind, so that errors.Is(err,
// sluice.ErrUnavailable) and errors.As(err, **pgconn.PgError) both work. It
// returns nil for nil.
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if format != "" {
		err = fmt.Errorf(format+": %w", append(args, err)...)
	}
	kind := Kind(err)
	if kind == nil || errors.Is(err, kind) {
		return err
	}
	return &kindError{kind: kind, err: err}
}

type kindError struct{ kind, err error }

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.err, e.kind} }

// Kind maps an error to one of the root package's kinds, by SQLSTATE where
// PostgreSQL answered. It returns nil for errors that have no kind. This is the
// only place that reads SQLSTATEs for that purpose.
func Kind(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return kindOfState(pe.Code)
	}
	var ce *pgconn.ConnectError
	var ne net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return sluice.ErrNotFound
	case errors.Is(err, context.DeadlineExceeded):
		return sluice.ErrTimeout
	case errors.As(err, &ce), errors.As(err, &ne), errors.Is(err, net.ErrClosed),
		errors.Is(err, io.ErrUnexpectedEOF), pgconn.SafeToRetry(err): // the server went away; the last, before anything was sent
		return sluice.ErrUnavailable
	}
	return nil
}

func kindOfState(code string) error {
	switch code {
	case "42501", "28000", "28P01":
		return sluice.ErrForbidden
	case "57014", "55P03":
		return sluice.ErrTimeout
	case "23505", "23P01", "40001", "40P01":
		return sluice.ErrConflict
	case "57P01", "57P02", "57P03", "57P05", "25P03":
		return sluice.ErrUnavailable
	case "42P01", "42883", "3F000", "42704", "3D000":
		return sluice.ErrNotFound
	}
	if len(code) == 5 {
		switch code[:2] {
		case "08", "53": // connection trouble; out of connections, memory or disk
			return sluice.ErrUnavailable
		case "22", "23":
			return sluice.ErrInvalid
		}
	}
	return nil
}

// SQLState returns the SQLSTATE in err, or "".
func SQLState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// IsNoPartition reports whether an INSERT failed because a partitioned table
// has no partition for the row. The SQLSTATE is that of a violated check, which
// would have a name.
func IsNoPartition(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "23514" && pe.ConstraintName == "" && pe.TableName != ""
}
