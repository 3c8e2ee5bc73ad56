package changes

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/backoff"
)

// result tells how process ended.
type result uint8

const (
	processed result = iota
	timedOut         // processed, and a policy timed out
	tooSlow          // not done within the bound; the task can be taken up again
	stopped          // the context ended
)

// process takes a task from match to delivery. A bound, if there is one, is for
// the decisions: where it is not met nothing of that round has been sent.
func (s *Service) process(ctx context.Context, t *task, bound time.Duration) result {
	how := processed
	for {
		r, done := s.decideWithin(ctx, t, bound)
		switch {
		case ctx.Err() != nil:
			return stopped
		case !done:
			return tooSlow
		case r == nil:
			return how
		}
		if r.timedOut.Load() {
			how = timedOut
		}
		if t.bindings, t.from = r.send(); len(t.bindings) == 0 {
			break
		}
	}
	s.metrics.Runs.Add(1)
	for i := range t.jobs {
		s.metrics.Rows.Add(int64(len(t.jobs[i].changes)))
	}
	return how
}

// decideWithin reports false when the bound was not met. The time in which the
// database is away does not count.
func (s *Service) decideWithin(ctx context.Context, t *task, bound time.Duration) (r *run, done bool) {
	if bound == 0 {
		return s.decide(ctx, t, true), true
	}
	for {
		away := s.outage.times.Load()
		within, cancel := context.WithTimeout(ctx, bound)
		r = s.decide(within, t, false)
		slow := within.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil, r != nil && r.tooSlow.Load():
			return nil, false
		case !slow:
			return r, true
		case away == s.outage.times.Load() && s.outage.now.Load() == 0:
			return nil, false
		}
	}
}

// decide takes a task up to the decisions, for the bindings that are left and from
// some row on for each of their subscriptions. own tells that the table's own
// worker does. It returns nil when there is nothing to send.
func (s *Service) decide(ctx context.Context, work *task, own bool) *run {
	rel, gen := work.jobs[0].rel, work.jobs[0].gen
	t, err := s.definition(ctx, rel.OID, gen)
	switch {
	case ctx.Err() != nil, notFound(err):
		return nil
	case errors.Is(err, errNotVisible):
		s.refuse(work, s.tooLate())
		return nil
	case err != nil:
		s.refuse(work, fmt.Errorf("the table's definition cannot be read: %w", err))
		return nil
	}
	var r *run
	for range definitionTries {
		if !t.listed() {
			return nil
		}
		if r = newRun(s, t, work.jobs); r == nil {
			s.refuse(work, errRenamed)
			return nil
		}
		r.own, r.replay = own, work.replay
		r.from = work.from
		if r.roster = s.rosterFor(ctx, t, work); len(r.roster.classes) == 0 {
			return nil
		}
		if r.roster.left {
			r.leave()
		}
		r.match(ctx)
		r.authorize(ctx)
		if r.invisible {
			if ctx.Err() == nil {
				s.refuse(work, s.tooLate()) // nobody has been sent anything yet
			}
			return nil
		}
		if !r.verify(ctx) {
			continue // nobody has been sent anything yet
		}
		if !r.failed.Load() || ctx.Err() != nil {
			return r
		}
		// The definition may be older than the table is: DDL is visible before the
		// stream tells of it. Nobody has been sent anything yet.
		var fresh *table
		err := s.persist(ctx, func() (err error) {
			fresh, err = s.catalog.reload(ctx, t.oid)
			return err
		})
		if err != nil || reflect.DeepEqual(fresh.def, t.def) {
			return r
		}
		t = fresh
	}
	return r
}

// definition returns what the catalog says of a table, in generation gen or later.
// It waits until queries see that: a row must not be judged by the grants and
// policies that its own transaction has taken away.
func (s *Service) definition(ctx context.Context, oid uint32, gen uint64) (t *table, err error) {
	seen := s.untilVisible(ctx, func() bool {
		err = s.persist(ctx, func() (err error) {
			t, err = s.catalog.table(ctx, oid, gen)
			return err
		})
		return err != nil || t.gen >= gen
	})
	if !seen && err == nil {
		err = errNotVisible
	}
	return t, err
}

// errNotVisible tells that a commit which the log shows is not seen by queries.
var errNotVisible = errors.New("their commit is not visible in time")

// untilVisible asks until the answer is yes; it reports false when that takes
// longer than VisibleTimeout, or ctx ends.
func (s *Service) untilVisible(ctx context.Context, ask func() bool) bool {
	wait := backoff.Backoff{Min: 200 * time.Microsecond, Max: 50 * time.Millisecond}
	for until := time.Now().Add(s.cfg.VisibleTimeout); ; {
		switch {
		case ask():
			return true
		case ctx.Err() != nil:
			return false
		case time.Now().After(until):
			s.metrics.NotVisible.Add(1)
			return false
		}
		s.metrics.VisibleRetries.Add(1)
		if wait.Wait(ctx) != nil {
			return false
		}
	}
}

func (s *Service) tooLate() error {
	return fmt.Errorf("%w: queries do not see it after %s; is a synchronous standby away?", errNotVisible, s.cfg.VisibleTimeout)
}

// errRenamed tells that names of columns stand for others by now.
var errRenamed = errors.New("the table's columns have changed their names since")

// refuse tells those whom changes are for that they do not come, because who may
// see them cannot be known.
func (s *Service) refuse(work *task, why error) {
	rel := work.jobs[0].rel
	table := rel.Schema + "." + rel.Name
	s.warn(sluice.LogTable, table, "changes were given up", why)
	r := sluice.Refuse(sluice.CodeChangesGap).WithText("Changes of %s were given up", table)
	if errors.Is(why, errNotVisible) || errors.Is(why, errRenamed) { // the rest is between us and the log
		r = sluice.Refuse(sluice.CodeChangesGap).WithText("Changes of %s were given up: %v", table, why)
	}
	for _, sub := range s.losers(work.jobs, work.bindings) {
		s.gap(sub, r)
	}
}

// definitionTries bounds how often changes are decided again because their table
// was altered meanwhile.
const definitionTries = 5

// persist repeats fn while the database cannot be reached: a restart of
// PostgreSQL must not lose a change.
func (s *Service) persist(ctx context.Context, fn func() error) error {
	var wait backoff.Backoff
	away := false
	defer func() {
		if away {
			s.outageEnds()
		}
	}()
	for {
		err := fn()
		// A connection that broke while it was idle is noticed before anything is sent.
		if err == nil || ctx.Err() != nil || !errors.Is(err, sluice.ErrUnavailable) && !pgconn.SafeToRetry(err) {
			return err
		}
		if !away {
			away = true
			s.outageBegins()
		}
		if wait.Wait(ctx) != nil {
			return ctx.Err()
		}
	}
}

// run is the work on jobs of one table: changes of one or several transactions,
// in commit order, under one description of the table.
type run struct {
	s    *Service
	t    *table
	rows []row
	xids []string // of the transactions
	// streamed tells which columns the stream has: not those that were added
	// later or are not published, nor, before PostgreSQL 18, generated ones.
	streamed []bool
	// identity holds the positions of the replica identity's columns.
	identity []int

	own    bool // on the worker of this table alone
	replay bool // see task
	// waited tells that waitVisible has been called, invisible that it was in vain.
	waited, invisible bool

	// failed tells that PostgreSQL refused a statement about this table, timedOut
	// that a policy took too long, tooSlow that this is to be looked into by the
	// table's own worker.
	failed, timedOut, tooSlow atomic.Bool
	splits                    atomic.Int64 // of what took too long

	roster *roster
	from   map[*subscription]int // places before it are done
	asking map[*group]*asking    // who is asked as the user

	samples []sample
}

// row is one change with its values in the order of the table's columns.
type row struct {
	ch       *sluice.Change
	commit   sluice.LSN
	index    int            // in the transaction
	time     time.Time      // of the commit
	new      []sluice.Value // nil for DELETE
	old      []sluice.Value // nil when not sent
	lookup   []sluice.Value // new, with current values in place of missing ones
	lookedUp bool
	filters  map[string]bool // what PostgreSQL said, by text of the condition
	encoded  map[encodeKey][]byte
	hits     []hit
	place    int // orders the rows of a task, whatever leave puts between them
	// update is, for a row that stands for the old row of an UPDATE, the place of
	// that one, counted from 1; see leave.
	update int
}

// newRun returns nil when columns have changed places: a name of then is another
// column's now, and its value would be judged as that one's.
func newRun(s *Service, t *table, jobs []job) *run {
	r := &run{s: s, t: t, streamed: make([]bool, len(t.def.Columns)), asking: map[*group]*asking{}}
	// The stream leaves out some columns and may know fewer than the catalog.
	place := make([]int, len(t.def.Columns))
	for i := range place {
		place[i] = -1
	}
	last := -1
	for i, c := range jobs[0].rel.Columns {
		if at, ok := t.columns[c.Name]; ok {
			if at < last {
				return nil
			}
			last = at
			place[at], r.streamed[at] = i, true
			if c.Key {
				r.identity = append(r.identity, at)
			}
		}
	}
	arrange := func(in []sluice.Value) []sluice.Value {
		if in == nil {
			return nil
		}
		out := make([]sluice.Value, len(place))
		for at, i := range place {
			if i >= 0 && i < len(in) {
				out[at] = in[i]
			}
		}
		return out
	}
	for k := range jobs {
		j := &jobs[k]
		if xid := strconv.FormatUint(j.xid, 10); len(r.xids) == 0 || r.xids[len(r.xids)-1] != xid {
			r.xids = append(r.xids, xid)
		}
		for i := range j.changes {
			ch := &j.changes[i]
			w := row{ch: ch, commit: j.commit, index: j.first + i, time: j.time, new: arrange(ch.New), old: arrange(ch.Old), encoded: map[encodeKey][]byte{}}
			// Under identity FULL the old row knows what the new one left out.
			if w.old != nil && ch.OldFull {
				for c := range w.new {
					if w.new[c].Kind == sluice.ValueMissing {
						w.new[c] = w.old[c]
					}
				}
			}
			w.place = 2 * len(r.rows)
			r.rows = append(r.rows, w)
		}
	}
	return r
}

// warn writes one line a minute about one thing that goes wrong.
func (s *Service) warn(kind, name, text string, err error) {
	if s.noisy.allow(kind + " " + name) {
		s.log.Warn(text, kind, name, sluice.LogError, err)
	}
}
