package pg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
)

// Tx is what code that runs as a user may do. It cannot commit, roll back or
// reach the connection: As does that.
type Tx interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Setting is one configuration parameter, set for one transaction.
type Setting struct{ Name, Value string }

// AsOptions are the parts of a transaction that are not the identity.
type AsOptions struct {
	// ReadOnly begins the transaction READ ONLY.
	ReadOnly bool
	// StatementTimeout, if positive, is set for this transaction.
	StatementTimeout time.Duration
	// Settings are set after role and claims. Names that belong to the identity
	// (role, session_authorization, request.jwt.*) are refused.
	Settings []Setting
	// Rollback ends the transaction with ROLLBACK even when fn succeeds.
	Rollback bool
}

// settingsFor returns the transaction-local settings that make a connection act
// as id. The legacy request.jwt.claim.* names are set everywhere, so that a
// policy cannot tell who asks (spec postgres-changes D18).
func settingsFor(id sluice.Claims, opt AsOptions) ([]Setting, error) {
	if err := checkRole(id.Role); err != nil {
		return nil, err
	}
	claims := string(id.JSON)
	if claims == "" {
		claims = "{}"
	}
	set := make([]Setting, 0, 5+len(opt.Settings))
	set = append(set,
		Setting{"role", id.Role},
		Setting{"request.jwt.claims", claims},
		Setting{"request.jwt.claim.sub", id.Subject},
		Setting{"request.jwt.claim.role", id.Role},
	)
	if opt.StatementTimeout > 0 {
		set = append(set, Setting{"statement_timeout", fmt.Sprint(opt.StatementTimeout.Milliseconds())})
	}
	for _, s := range opt.Settings {
		n := strings.ToLower(s.Name)
		if n == "role" || n == "session_authorization" || strings.HasPrefix(n, "request.jwt") {
			return nil, fmt.Errorf("setting %q belongs to the identity: %w", s.Name, sluice.ErrInvalid)
		}
		set = append(set, s)
	}
	return set, nil
}

// checkRole refuses names that SET ROLE would read as something else than a
// role: 'none' succeeds and leaves the login role in force.
func checkRole(role string) error {
	switch {
	case role == "", strings.EqualFold(role, "none"), strings.ContainsRune(role, 0), len(role) > 63:
		return fmt.Errorf("act as role %q: %w", role, sluice.ErrForbidden)
	}
	return nil
}

// settingsSQL returns one SELECT that sets n parameters given as $1,$2, $3,$4, …
func settingsSQL(n int) string {
	if n < len(settingsText) {
		return settingsText[n]
	}
	return makeSettingsSQL(n)
}

var settingsText = func() (t [16]string) {
	for i := range t {
		t[i] = makeSettingsSQL(i)
	}
	return
}()

func makeSettingsSQL(n int) string {
	var b strings.Builder
	b.WriteString("select ")
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "pg_catalog.set_config($%d, $%d, true)", 2*i+1, 2*i+2)
	}
	return b.String()
}

func settingsArgs(set []Setting) [][]byte {
	args := make([][]byte, 0, 2*len(set))
	for _, s := range set {
		args = append(args, []byte(s.Name), []byte(s.Value))
	}
	return args
}

func beginSQL(readOnly bool) string {
	if readOnly {
		return "begin read only"
	}
	return "begin"
}

// As runs fn in one transaction as id: role and request.jwt.claims are set for
// that transaction alone, in a statement of their own before anything fn sends.
// The transaction commits when fn returns nil, else it rolls back. The error is
// fn's, or PostgreSQL's with its kind (see Kind).
func (p *Pool) As(ctx context.Context, id sluice.Claims, opt AsOptions, fn func(ctx context.Context, tx Tx) error) (err error) {
	set, err := settingsFor(id, opt)
	if err != nil {
		return err
	}
	c, err := p.Acquire(ctx)
	if err != nil {
		return Wrap(err, "acquire connection")
	}
	defer func() { release(c.Conn()); c.Release() }()

	pipe := c.Conn().PgConn().StartPipeline(ctx)
	pipe.SendQueryParams(beginSQL(opt.ReadOnly), nil, nil, nil, nil)
	pipe.SendQueryParams(settingsSQL(len(set)), settingsArgs(set), nil, nil, nil)
	err = pipe.Sync()
	for err == nil {
		var res any
		res, err = pipe.GetResults()
		if err != nil || res == nil {
			break
		}
		if rr, ok := res.(*pgconn.ResultReader); ok {
			_, err = rr.Close()
		}
	}
	if cerr := pipe.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Wrap(err, "begin as role %q", id.Role)
	}
	if err := fn(ctx, c.Conn()); err != nil {
		return Wrap(err, "")
	}
	end := "commit"
	if opt.Rollback {
		end = "rollback"
	}
	tag, err := c.Exec(ctx, end)
	if err != nil {
		return Wrap(err, "%s as role %q", end, id.Role)
	}
	if !opt.Rollback && tag.String() != "COMMIT" {
		// A statement failed and fn swallowed its error.
		return fmt.Errorf("commit as role %q: transaction was aborted: %w", id.Role, sluice.ErrConflict)
	}
	return nil
}

// release leaves conn outside of any transaction, or closes it. The pool drops
// closed connections.
func release(conn *pgx.Conn) {
	if conn.IsClosed() || conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, "rollback"); err != nil || conn.PgConn().TxStatus() != 'I' {
		_ = conn.Close(ctx)
	}
}

// EachCheck is one identity's question in AsEach.
type EachCheck struct {
	Claims sluice.Claims
	Args   [][]byte // text format parameters of the statement
}

// EachResult is the answer: the rows' text values, or the error that this
// identity's statement raised. Another identity's error does not touch it.
type EachResult struct {
	Rows [][][]byte
	Err  error
}

// AsEach runs one statement as every identity in turn, in one transaction and
// one network flush: savepoint, settings, statement, back to the savepoint. The
// whole transaction is rolled back, so side effects of functions do not stay.
// Errors of single statements are in the results; the returned error means that
// nothing was decided.
func (p *Pool) AsEach(ctx context.Context, sql string, checks []EachCheck, opt AsOptions) ([]EachResult, error) {
	if len(checks) == 0 {
		return nil, nil
	}
	out := make([]EachResult, len(checks))
	sets := make([][]Setting, len(checks))
	for i, ch := range checks {
		sets[i], out[i].Err = settingsFor(ch.Claims, opt)
	}
	c, err := p.Acquire(ctx)
	if err != nil {
		return nil, Wrap(err, "acquire connection")
	}
	defer func() { release(c.Conn()); c.Release() }()

	pipe := c.Conn().PgConn().StartPipeline(ctx)
	pipe.SendQueryParams("begin", nil, nil, nil, nil)
	if err := pipe.Sync(); err != nil {
		pipe.Close()
		return nil, Wrap(err, "begin")
	}
	for i, ch := range checks {
		if out[i].Err != nil {
			continue
		}
		// Two syncs: an error skips to the first, and the second group runs in
		// the failed transaction, where ROLLBACK TO is allowed.
		pipe.SendQueryParams("savepoint s", nil, nil, nil, nil)
		pipe.SendQueryParams(settingsSQL(len(sets[i])), settingsArgs(sets[i]), nil, nil, nil)
		pipe.SendQueryParams(sql, ch.Args, nil, nil, nil)
		if err := pipe.Sync(); err != nil {
			pipe.Close()
			return nil, Wrap(err, "send check")
		}
		pipe.SendQueryParams("rollback to savepoint s", nil, nil, nil, nil)
		if err := pipe.Sync(); err != nil {
			pipe.Close()
			return nil, Wrap(err, "send rollback to savepoint")
		}
	}
	err = readEach(pipe, out)
	if cerr := pipe.Close(); err == nil && cerr != nil {
		var pe *pgconn.PgError
		if !errors.As(cerr, &pe) {
			err = cerr
		}
	}
	if err != nil {
		return nil, Wrap(err, "read checks")
	}
	return out, nil
}

func readEach(pipe *pgconn.Pipeline, out []EachResult) error {
	// One group of results up to its sync: nth statement's rows go to keep.
	group := func(nth int, keep *EachResult) error {
		for n := 0; ; {
			res, err := pipe.GetResults()
			if err != nil {
				var pe *pgconn.PgError
				if keep == nil || !errors.As(err, &pe) {
					return err
				}
				keep.Rows, keep.Err = nil, Wrap(err, "")
				continue
			}
			switch r := res.(type) {
			case nil, *pgconn.PipelineSync:
				return nil
			case *pgconn.ResultReader:
				got := r.Read()
				if got.Err != nil {
					var pe *pgconn.PgError
					if keep == nil || !errors.As(got.Err, &pe) {
						return got.Err
					}
					keep.Rows, keep.Err = nil, Wrap(got.Err, "")
				} else if n == nth && keep != nil {
					keep.Rows = got.Rows
				}
				n++
			}
		}
	}
	if err := group(-1, nil); err != nil {
		return err
	}
	for i := range out {
		if out[i].Err != nil {
			continue
		}
		if err := group(2, &out[i]); err != nil {
			return err
		}
		if err := group(-1, nil); err != nil {
			return err
		}
	}
	return nil
}
