package pg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

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
	// Isolation is its level in PostgreSQL's words, in lower case. The default, also
	// for words that are none, is the login's.
	Isolation string
	// StatementTimeout, if positive, is set for this transaction.
	StatementTimeout time.Duration
	// Settings are set after role and claims. Names that belong to the identity
	// (role, session_authorization, request.jwt.*) are refused.
	Settings []Setting
	// Rollback ends the transaction with ROLLBACK even when fn succeeds.
	Rollback bool
	// AcquireTimeout, if positive, bounds the wait of Pipeline for a connection.
	AcquireTimeout time.Duration
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
	return extraSettings(set, opt)
}

// extraSettings adds those that are not the identity.
func extraSettings(set []Setting, opt AsOptions) ([]Setting, error) {
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

func beginSQL(readOnly bool, isolation string) string {
	begin := "begin"
	if readOnly {
		begin = "begin read only"
	}
	switch isolation {
	case "serializable":
		return begin + " isolation level serializable"
	case "repeatable read":
		return begin + " isolation level repeatable read"
	case "read committed", "read uncommitted":
		return begin + " isolation level read committed"
	}
	return begin
}

// cleanSession ends what a function called as a user may have left in the
// session, where rollback does not reach or was not done: SET without LOCAL,
// role, cursors, LISTEN, advisory locks, temporary tables. Prepared statements
// stay. It shares the flush of commit; measured: 15 to 40 µs.
const cleanSession = "; reset session authorization; reset role; reset all; close all; unlisten *; " +
	"select pg_catalog.pg_advisory_unlock_all(); discard sequences; discard temp"

// As runs fn in one transaction as id: role and request.jwt.claims are set for
// that transaction alone, in a statement of their own before anything fn sends.
// The transaction commits when fn returns nil, else it rolls back. The error is
// fn's, or PostgreSQL's with its kind (see Kind). fn closes its rows and keeps
// tx to itself.
func (p *Pool) As(ctx context.Context, id sluice.Claims, opt AsOptions, fn func(ctx context.Context, tx Tx) error) error {
	set, err := settingsFor(id, opt)
	if err != nil {
		return err
	}
	return p.transaction(ctx, fmt.Sprintf("role %q", id.Role), set, opt, fn)
}

// InTx runs fn in one transaction as the pool's own login, which commits when fn
// returns nil. Errors and fn's part are as in As, and so is what becomes of the
// session: a trigger or a function of the project that fn calls leaves nothing in it.
func (p *Pool) InTx(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error {
	return p.transaction(ctx, "the login", nil, AsOptions{}, fn)
}

// transaction runs fn with set applied; who names whom it runs as, for errors.
func (p *Pool) transaction(ctx context.Context, who string, set []Setting, opt AsOptions, fn func(ctx context.Context, tx Tx) error) error {
	c, err := p.Acquire(ctx)
	if err != nil {
		return Wrap(err, "acquire connection")
	}
	clean := false
	defer func() { release(c, clean) }()

	conn := c.Conn()
	if err := beginAs(ctx, conn.PgConn(), set, beginSQL(opt.ReadOnly, opt.Isolation)); err != nil {
		return Wrap(err, "begin as %s", who)
	}
	if err := fn(ctx, conn); err != nil {
		return Wrap(err, "")
	}
	if conn.PgConn().TxStatus() == 'I' {
		return fmt.Errorf("run as %s: the transaction was ended inside of it", who)
	}
	end := "commit"
	if opt.Rollback {
		end = "rollback"
	}
	results, err := conn.PgConn().Exec(ctx, cleanSQL(conn.PgConn(), end)).ReadAll()
	ended := len(results) > 0 && results[0].Err == nil
	clean = err == nil && genuine(results[len(results)-1].Rows)
	switch {
	case !ended && err != nil:
		return Wrap(err, "%s as %s", end, who)
	case !opt.Rollback && results[0].CommandTag.String() != "COMMIT":
		// A statement failed and fn swallowed its error.
		return fmt.Errorf("commit as %s: transaction was aborted: %w", who, sluice.ErrConflict)
	}
	return nil // committed, even if the session could not be cleaned
}

// beginAs begins a transaction by begin and applies set to it, in one flush.
func beginAs(ctx context.Context, conn *pgconn.PgConn, set []Setting, begin string) error {
	pipe := conn.StartPipeline(ctx)
	pipe.SendQueryParams(begin, nil, nil, nil, nil)
	if len(set) > 0 {
		pipe.SendQueryParams(settingsSQL(len(set)), settingsArgs(set), nil, nil, nil)
	}
	err := pipe.Sync()
	if err == nil {
		err = readGroup(pipe, nil)
	}
	if cerr := pipe.Close(); err == nil {
		err = cerr
	}
	return err
}

// release gives a connection back outside of any transaction and, unless it is
// clean already, cleaned; or it closes the connection, and the pool makes another:
// also when somebody has prepared statements on it.
func release(c *pgxpool.Conn, clean bool) {
	defer c.Release()
	conn := c.Conn().PgConn()
	if conn.IsClosed() || clean && conn.TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	results, err := conn.Exec(ctx, cleanSQL(conn, "rollback")).ReadAll()
	if err != nil || conn.TxStatus() != 'I' || !genuine(results[len(results)-1].Rows) {
		_ = conn.Close(ctx) // the error that led here is reported already
	}
}

// EachCheck is one identity's question in AsEach.
type EachCheck struct {
	Claims sluice.Claims
	Args   [][]byte // text format parameters of the statement; nil is NULL
	// Settings are set for this check alone, behind those of AsOptions and
	// under the same rule.
	Settings []Setting
	// Given, if it has SQL, runs before the statement, as service_role: it makes
	// the rows that the question is about, past row level security. They go with
	// the check.
	Given Statement
}

// service is who runs EachCheck.Given: the one role beside the users' own that
// the login authenticator may become, and that row level security lets pass.
var service = sluice.Claims{Role: "service_role", JSON: []byte(`{"role":"service_role"}`)}

// settings returns the settings of the check's own statement and of Given.
func (ch *EachCheck) settings(opt AsOptions) (own, given []Setting, err error) {
	if len(ch.Settings) > 0 {
		opt.Settings = append(slices.Clip(opt.Settings), ch.Settings...)
	}
	if own, err = settingsFor(ch.Claims, opt); err != nil || ch.Given.SQL == "" {
		return own, nil, err
	}
	given, err = settingsFor(service, opt)
	return own, given, err
}

// EachResult is the answer: the rows' text values, or the error that this
// identity's statement raised. Another identity's error does not touch it.
type EachResult struct {
	Rows [][][]byte
	Err  error
}

// readGroup reads results up to the next sync. The last statement's rows, or the
// server's error, go to keep. Without keep the server's error is returned, once
// the group has been read.
func readGroup(pipe *pgconn.Pipeline, keep *EachResult) error {
	return readResults(pipe, nil, keep)
}

// readResults is readGroup for groups in which statements are prepared, too.
func readResults(pipe *pgconn.Pipeline, described func(*pgconn.StatementDescription), keep *EachResult) error {
	var failed error
	for {
		res, err := pipe.GetResults()
		if rr, ok := res.(*pgconn.ResultReader); ok && err == nil {
			got := rr.Read()
			err = got.Err
			if err == nil && keep != nil {
				keep.Rows = got.Rows
			}
		}
		if err != nil {
			var pe *pgconn.PgError
			if !errors.As(err, &pe) {
				return err
			}
			if keep == nil {
				failed = err
			} else {
				keep.Rows, keep.Err = nil, Wrap(err, "")
			}
			continue
		}
		switch res := res.(type) {
		case *pgconn.StatementDescription:
			described(res)
		case *pgconn.PipelineSync:
			return failed
		case nil:
			return errAnswersEnded
		}
	}
}
