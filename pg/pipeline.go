package pg

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
)

// Statement is SQL with parameters in text form, their types left to PostgreSQL;
// nil is NULL.
type Statement struct {
	SQL  string
	Args [][]byte
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

// Pipeline runs statements in one transaction as id, in one network flush:
// BEGIN, settings, statements, COMMIT, and the cleaning of the session. Nothing
// is prepared before the role is set. With a check, the end of the transaction
// waits for its answer in a second flush: an error rolls back and is returned.
// The results are complete when Pipeline returns, and committed, deferred
// constraints included.
func (p *Pool) Pipeline(ctx context.Context, id sluice.Claims, opt AsOptions, statements []Statement, check func([]Result) error) ([]Result, error) {
	set, err := settingsFor(id, opt)
	if err != nil {
		return nil, err
	}
	c, err := p.Acquire(ctx)
	if err != nil {
		return nil, Wrap(err, "acquire connection")
	}
	clean := false
	defer func() { release(c, clean) }()
	conn := c.Conn().PgConn()
	end := "commit"
	if opt.Rollback {
		end = "rollback"
	}
	pipe := conn.StartPipeline(ctx)
	pipe.SendQueryParams(beginSQL(opt.ReadOnly), nil, nil, nil, nil)
	pipe.SendQueryParams(settingsSQL(len(set)), settingsArgs(set), nil, nil, nil)
	for _, s := range statements {
		pipe.SendQueryParams(s.SQL, s.Args, nil, nil, nil)
	}
	if check == nil {
		pipe.SendQueryParams(end, nil, nil, nil, nil)
	}
	err = pipe.Sync()
	if err == nil && check == nil {
		err = sendClean(pipe)
	}
	var results []Result
	if err == nil {
		results, err = readResults(pipe)
	}
	if err != nil {
		pipe.Close()
		return nil, Wrap(err, "run as role %q", id.Role)
	}
	results = results[2:] // BEGIN and the settings
	if check == nil {
		_, err = readResults(pipe)
		clean = err == nil
		pipe.Close()
		return finished(results, id, opt)
	}
	if err := check(results); err != nil {
		pipe.Close()
		return nil, err // release rolls back
	}
	pipe.SendQueryParams(end, nil, nil, nil, nil)
	if err = pipe.Sync(); err == nil {
		err = sendClean(pipe)
	}
	var last []Result
	if err == nil {
		last, err = readResults(pipe)
	}
	if err != nil {
		pipe.Close()
		return nil, Wrap(err, "%s as role %q", end, id.Role)
	}
	_, err = readResults(pipe)
	clean = err == nil
	pipe.Close()
	return finished(append(results, last...), id, opt)
}

// finished checks that the transaction really was committed and cuts its end
// off the results.
func finished(results []Result, id sluice.Claims, opt AsOptions) ([]Result, error) {
	n := len(results) - 1
	if !opt.Rollback && results[n].Tag.String() != "COMMIT" {
		return nil, fmt.Errorf("commit as role %q: transaction was aborted: %w", id.Role, sluice.ErrConflict)
	}
	return results[:n], nil
}

func sendClean(pipe *pgconn.Pipeline) error {
	for _, s := range cleanStatements {
		pipe.SendQueryParams(s, nil, nil, nil, nil)
	}
	return pipe.Sync()
}

// readResults reads up to the next sync.
func readResults(pipe *pgconn.Pipeline) ([]Result, error) {
	var out []Result
	var first error
	for {
		res, err := pipe.GetResults()
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
		case *pgconn.ResultReader:
			got := r.Read()
			if got.Err != nil && first == nil {
				var pe *pgconn.PgError
				if !errors.As(got.Err, &pe) {
					return nil, got.Err
				}
				first = got.Err
			}
			out = append(out, Result{got.Rows, got.CommandTag})
		}
	}
}
