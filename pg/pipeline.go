package pg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
)

// Statement is SQL with parameters in text form, their types left to PostgreSQL;
// nil is NULL.
type Statement struct {
	SQL  string
	Args [][]byte
	// Large, if set, may take the last value of a row out of the Result, where it
	// is then empty, when it has LargeValue bytes or more: as it comes from the
	// server, while the transaction is open. At most one statement of a Pipeline
	// has it, and it holds nothing up but itself. What comes after it may still
	// fail.
	Large LargeFunc
}

// Result is what a statement returned: values in text form.
type Result struct {
	Rows [][][]byte
	Tag  pgconn.CommandTag
}

// cleanStatements is cleanSession, one by one, for the extended protocol.
var cleanStatements = func() []string {
	var out []string
	for s := range strings.SplitSeq(cleanSession, ";") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}()

// cleanRolledBack is what is left to clean when a READ ONLY transaction was
// rolled back: advisory locks alone outlive that.
var cleanRolledBack = []string{"select pg_catalog.pg_advisory_unlock_all()"}

// Pipeline runs statements in one transaction as id, in one network flush:
// BEGIN, settings, statements, COMMIT, and the cleaning of the session. Nothing
// is prepared before the role is set. With a check, the end of the transaction
// waits for its answer in a second flush: an error rolls back and is returned.
// The results are complete when Pipeline returns, and committed, deferred
// constraints included.
//
// A statement that is sent more than once is prepared (see registry). When one
// that was prepared earlier fails for what has changed since, the transaction,
// which has left nothing behind, is run once more without.
func (p *Pool) Pipeline(ctx context.Context, id sluice.Claims, opt AsOptions, statements []Statement, check func([]Result) error) ([]Result, error) {
	set, err := settingsFor(id, opt)
	if err != nil {
		return nil, err
	}
	return p.pipeline(ctx, run{set: set, role: id.Role, opt: opt, statements: statements, check: check})
}

// ReadOnly runs one statement in a READ ONLY transaction as the pool's own login,
// in one flush, and takes the transaction back. settings are set for it alone;
// names that belong to an identity are refused. The statement is Sluice's own:
// whoever asks has nothing to do with it.
func (p *Pool) ReadOnly(ctx context.Context, timeout time.Duration, settings []Setting, st Statement) ([][][]byte, error) {
	opt := AsOptions{ReadOnly: true, Rollback: true, StatementTimeout: timeout, Settings: settings}
	set, err := extraSettings(nil, opt)
	if err != nil {
		return nil, err
	}
	res, err := p.pipeline(ctx, run{set: set, opt: opt, statements: []Statement{st}})
	if err != nil {
		return nil, err
	}
	return res[0].Rows, nil
}

func (p *Pool) pipeline(ctx context.Context, r run) ([]Result, error) {
	acquire, opt := ctx, r.opt
	if opt.AcquireTimeout > 0 {
		var cancel context.CancelFunc
		acquire, cancel = context.WithTimeout(ctx, opt.AcquireTimeout)
		defer cancel()
	}
	c, err := p.Acquire(acquire)
	if err != nil {
		return nil, Wrap(err, "acquire connection")
	}
	r.conn = c.Conn().PgConn()
	defer func() { release(c, r.clean) }()
	results, err := r.once(ctx)
	if err != nil && r.stale(err) {
		registryOf(r.conn).clear()
		if _, rerr := r.conn.Exec(ctx, "rollback").ReadAll(); rerr != nil {
			return nil, err
		}
		results, err = r.once(ctx)
	}
	return results, err
}

var errAnswersEnded = errors.New("the server's answers ended before they were due")

// run is one transaction of Pipeline.
type run struct {
	conn       *pgconn.PgConn
	set        []Setting
	role       string
	opt        AsOptions
	statements []Statement
	check      func([]Result) error

	clean  bool // the connection may go back as it is
	reused bool // a statement was prepared earlier
	took   bool // a Statement.Large has taken a value
}

// staleStates are the errors that a statement prepared earlier can owe to a
// change of the catalog or of the session: it is gone, or the types that it was
// analysed with are.
var staleStates = map[string]bool{"26000": true, "0A000": true, "42883": true, "42804": true, "42P18": true, "22P02": true, "XX000": true}

func (r *run) stale(err error) bool {
	return r.reused && !r.took && staleStates[SQLState(err)] && !r.conn.IsClosed()
}

// scope is what tells prepared statements of equal text apart.
func (r *run) scope() string {
	s := r.role
	for _, v := range r.set {
		if v.Name == "search_path" {
			s += "\x00" + v.Value
		}
	}
	return s
}

func (r *run) end() string {
	if r.opt.Rollback {
		return "rollback"
	}
	return "commit"
}

func (r *run) once(ctx context.Context) ([]Result, error) {
	pipe := r.conn.StartPipeline(ctx)
	defer pipe.Close() //nolint:errcheck // what went wrong was read before
	s := &sender{pipe: pipe, registry: registryOf(r.conn)}
	defer s.settle()
	s.deallocate()
	s.send("", beginSQL(r.opt.ReadOnly, r.opt.Isolation), nil)
	s.send("", settingsSQL(len(r.set)), settingsArgs(r.set))
	scope := r.scope()
	t := tapOf(r.conn)
	for i, st := range r.statements {
		if st.Large != nil {
			t.set(2+i, st.Large) // behind BEGIN and the settings
		}
		s.send(scope, st.SQL, st.Args)
	}
	defer t.set(0, nil)
	if r.check == nil {
		r.sendEnd(s)
	}
	r.reused = s.reused
	results, err := s.exchange()
	r.took = t.took
	done := 2 + len(r.statements) // BEGIN and the settings
	if len(results) < done || r.check == nil && len(results) == done {
		if err == nil {
			err = errAnswersEnded
		}
		return nil, Wrap(err, "run as role %q", r.role)
	}
	if r.check != nil {
		if err := r.check(results[2:done]); err != nil {
			return nil, err // release rolls back
		}
		r.sendEnd(s)
		var last []Result
		if last, err = s.exchange(); len(last) == 0 {
			if err == nil {
				err = errAnswersEnded
			}
			return nil, Wrap(err, "%s as role %q", r.end(), r.role)
		}
		results = append(results, last...)
	}
	// An error behind the end is one of cleaning.
	r.clean = err == nil && (s.registry.names != namesListed || genuine(results[len(results)-1].Rows))
	if !r.opt.Rollback && results[done].Tag.String() != "COMMIT" {
		return nil, fmt.Errorf("commit as role %q: transaction was aborted: %w", r.role, sluice.ErrConflict)
	}
	return results[2:done], nil
}

// sendEnd queues the end of the transaction and the cleaning of the session.
func (r *run) sendEnd(s *sender) {
	s.send("", r.end(), nil)
	list := cleanStatements
	if r.opt.Rollback && r.opt.ReadOnly {
		list = cleanRolledBack
	}
	for _, sql := range list {
		s.send("", sql, nil)
	}
	if s.registry.names == namesListed {
		s.pipe.SendQueryParams("select "+forgedSQL, nil, nil, nil, nil)
	}
}

// exchange sends what is queued, in one write, and reads the answers: of the
// statements up to the first error.
func (s *sender) exchange() ([]Result, error) {
	if err := s.pipe.Sync(); err != nil {
		return nil, err
	}
	var out []Result
	var first error
	for {
		res, err := s.pipe.GetResults()
		if err != nil {
			var pe *pgconn.PgError
			if !errors.As(err, &pe) {
				return nil, err
			}
			first = err
			continue // to the sync
		}
		switch r := res.(type) {
		case nil, *pgconn.PipelineSync:
			return out, first
		case *pgconn.StatementDescription:
			s.described(r)
		case *pgconn.ResultReader:
			got := r.Read()
			if got.Err != nil {
				var pe *pgconn.PgError
				if !errors.As(got.Err, &pe) {
					return nil, got.Err
				}
				first = got.Err
			}
			if first == nil {
				out = append(out, Result{got.Rows, got.CommandTag})
			}
		}
	}
}
