package pg_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

func TestKind(t *testing.T) {
	t.Parallel()
	state := func(code string) error { return fmt.Errorf("q: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct{ err, want error }{
		{nil, nil},
		{errors.New("x"), nil},
		{context.Canceled, nil},
		{state("P0001"), nil},
		{state("42601"), nil},
		{state(""), nil},
		{pgx.ErrNoRows, sluice.ErrNotFound},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), sluice.ErrTimeout},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, sluice.ErrUnavailable},
		{fmt.Errorf("x: %w", io.ErrUnexpectedEOF), sluice.ErrUnavailable},
		{net.ErrClosed, sluice.ErrUnavailable},
		{state("42501"), sluice.ErrForbidden},
		{state("28P01"), sluice.ErrForbidden},
		{state("57014"), sluice.ErrTimeout},
		{state("55P03"), sluice.ErrTimeout},
		{state("23505"), sluice.ErrConflict},
		{state("40001"), sluice.ErrConflict},
		{state("40P01"), sluice.ErrConflict},
		{state("57P01"), sluice.ErrUnavailable},
		{state("57P03"), sluice.ErrUnavailable},
		{state("53300"), sluice.ErrUnavailable},
		{state("08006"), sluice.ErrUnavailable},
		{state("42P01"), sluice.ErrNotFound},
		{state("3D000"), sluice.ErrNotFound},
		{state("22P02"), sluice.ErrInvalid},
		{state("23503"), sluice.ErrInvalid},
	} {
		if got := pg.Kind(c.err); got != c.want {
			t.Errorf("Kind(%v) = %v, want %v", c.err, got, c.want)
		}
		wrapped := pg.Wrap(c.err, "read %q", "x")
		if c.err == nil {
			if wrapped != nil {
				t.Error("Wrap(nil)")
			}
			continue
		}
		if !errors.Is(wrapped, c.err) || c.want != nil && !errors.Is(wrapped, c.want) || wrapped.Error() != `read "x": `+c.err.Error() {
			t.Errorf("Wrap(%v) = %v", c.err, wrapped)
		}
		var pe *pgconn.PgError
		if errors.As(c.err, &pe) && (pg.SQLState(wrapped) != pe.Code || !errors.As(wrapped, &pe)) {
			t.Errorf("SQLSTATE lost in %v", wrapped)
		}
		if again := pg.Wrap(wrapped, ""); again != wrapped && c.want != nil {
			t.Error("a kind was added twice")
		}
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	_, err := pg.Open(t.Context(), pg.Config{URL: "postgres://u:hunter2@h:port/db", Name: "rest"})
	if !errors.Is(err, sluice.ErrInvalid) || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), `"rest"`) {
		t.Errorf("bad URL: %v", err)
	}

	// Lazy: the error of a missing server shows at the first use.
	p, err := pg.Open(t.Context(), pg.Config{URL: "postgres://u:hunter2@127.0.0.1:1/db?sslmode=disable"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	err = p.As(t.Context(), user(alice), pg.AsOptions{}, func(context.Context, pg.Tx) error { return nil })
	if !errors.Is(err, sluice.ErrUnavailable) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("no server: %v", err)
	}

	db := pgtest.New(t)
	p, err = pg.Open(t.Context(), pg.Config{URL: db.URL("postgres"), Name: "rest", MaxConns: 2, StatementTimeout: 1234 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := ask(t, p, "select concat_ws(' ', current_setting('application_name'), current_setting('statement_timeout'))"); got != "rest 1234ms" {
		t.Errorf("settings: %s", got)
	}
	if p.Config().MaxConns != 2 {
		t.Errorf("max conns: %d", p.Config().MaxConns)
	}
	// A server that ends the connection is unavailable, and the next use has a new one.
	err = p.As(t.Context(), sluice.Claims{Role: "postgres"}, pg.AsOptions{}, func(ctx context.Context, tx pg.Tx) error {
		_, err := tx.Exec(ctx, "select pg_terminate_backend(pg_backend_pid())")
		return err
	})
	if !errors.Is(err, sluice.ErrUnavailable) {
		t.Errorf("terminated: %v", err)
	}
	ask(t, p, "select 'here'")
}
