package changes

import (
	"context"
	"errors"
	"reflect"
	"sort"
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
	if !t.begun {
		t.begun, t.bindings = true, s.index.find(t.jobs[0].rel.Schema, t.jobs[0].rel.Name)
		if len(t.bindings) == 0 {
			return processed
		}
	}
	how := processed
	for len(t.bindings) > 0 {
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
		t.bindings, t.from = r.send()
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
	var t *table
	err := s.persist(ctx, func() (err error) {
		t, err = s.catalog.table(ctx, rel.OID, gen)
		return err
	})
	if err != nil {
		if ctx.Err() == nil && !notFound(err) {
			s.log.Error("changes were dropped: the table's definition cannot be read", sluice.LogTable, rel.Schema+"."+rel.Name, sluice.LogError, err)
		}
		return nil
	}
	var r *run
	for range definitionTries {
		if !t.listed() {
			return nil
		}
		r = newRun(s, t, work.jobs)
		r.own, r.replay = own, work.replay
		r.group(ctx, work.bindings, work.from)
		r.match(ctx)
		r.authorize(ctx)
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
	waited bool // waitVisible has been called

	// failed tells that PostgreSQL refused a statement about this table, timedOut
	// that a policy took too long, tooSlow that this is to be looked into by the
	// table's own worker.
	failed, timedOut, tooSlow atomic.Bool
	splits                    atomic.Int64 // of what took too long

	groups []*group
	byKey  map[identityKey]*group
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
}

// group is everybody who acts as the same role with the same claims.
type group struct {
	key    identityKey
	claims sluice.Claims
	role   *tableRole
	subs   []*candidate
	// need and allowed are by image: 2i is the new row of change i, 2i+1 the old.
	need, allowed []bool
	timedOut      bool // a policy took too long
}

// candidate is a subscription with its bindings for this table.
type candidate struct {
	sub      *subscription
	bindings []*binding
	matched  [][]*binding // by change
	from     int          // changes before it are done, or not its
}

func newRun(s *Service, t *table, jobs []job) *run {
	r := &run{s: s, t: t, streamed: make([]bool, len(t.def.Columns)), byKey: map[identityKey]*group{}}
	// The stream leaves out some columns and may know fewer than the catalog.
	place := make([]int, len(t.def.Columns))
	for i := range place {
		place[i] = -1
	}
	for i, c := range jobs[0].rel.Columns {
		if at, ok := t.columns[c.Name]; ok {
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
			r.rows = append(r.rows, w)
		}
	}
	return r
}

// group sorts the subscribers by identity and leaves out those who came later
// than the last commit. Who came in between gets what committed since.
func (r *run) group(ctx context.Context, bindings []*binding, from map[*subscription]int) {
	seen := map[*subscription]*candidate{}
	for _, b := range bindings {
		first := max(from[b.sub], r.since(b.sub))
		if first == len(r.rows) {
			continue
		}
		if c := seen[b.sub]; c != nil {
			c.bindings = append(c.bindings, b)
			continue
		}
		claims, who, open := b.sub.identity()
		if !open {
			continue
		}
		g := r.byKey[who]
		if g == nil {
			g = &group{key: who, claims: claims, need: make([]bool, 2*len(r.rows)), allowed: make([]bool, 2*len(r.rows))}
			err := r.s.persist(ctx, func() (err error) {
				g.role, err = r.s.catalog.role(ctx, r.t, claims.Role)
				return err
			})
			if err != nil {
				g.role = &tableRole{} // may do nothing
				if ctx.Err() == nil {
					r.s.warn("role", claims.Role, "privileges of a role cannot be read", err)
				}
			}
			r.byKey[who] = g
			r.groups = append(r.groups, g)
		}
		c := &candidate{sub: b.sub, bindings: []*binding{b}, matched: make([][]*binding, len(r.rows)), from: first}
		seen[b.sub] = c
		g.subs = append(g.subs, c)
	}
}

// since returns the first row that committed at or behind a subscription's start.
func (r *run) since(sub *subscription) int {
	start := sluice.LSN(sub.start.Load())
	if r.replay {
		return 0
	}
	if r.rows[0].commit >= start { // nearly always
		return 0
	}
	return sort.Search(len(r.rows), func(i int) bool { return r.rows[i].commit >= start })
}

// warn writes one line a minute about one thing that goes wrong.
func (s *Service) warn(kind, name, text string, err error) {
	if s.noisy.allow(kind + " " + name) {
		s.log.Warn(text, kind, name, sluice.LogError, err)
	}
}

// outcome says what a group gets of a change before filters and policies.
type outcome uint8

const (
	outNothing  outcome = iota
	outDecide           // filters, then policies
	outNoKey            // error 400 to every candidate
	outNoSelect         // error 401 to every candidate
)

func (r *run) outcome(g *group, w *row) outcome {
	switch {
	case !r.t.published(w.ch.Kind):
		return outNothing
	case !g.role.usage:
		return outNothing
	case w.ch.Kind == sluice.ChangeDelete:
		// Nobody learns more of a deleted row than its key, and not that without
		// the right to read it.
		if !g.role.any || !g.role.keyOK {
			return outNothing
		}
	case len(r.t.key) == 0:
		return outNoKey
	case !g.role.keyOK:
		return outNoSelect
	}
	return outDecide
}

// match finds the bindings that want each change, and notes which images
// policies have to be asked about.
func (r *run) match(ctx context.Context) {
	for i := range r.rows {
		w := &r.rows[i]
		wanted := false
		for _, g := range r.groups {
			out := r.outcome(g, w)
			if out == outNothing {
				continue
			}
			for _, c := range g.subs {
				for _, b := range c.bindings {
					if i < c.from || b.event != 0 && b.event != w.ch.Kind {
						continue
					}
					if out == outDecide && !r.passes(ctx, w, g.role, b.filters) {
						continue
					}
					c.matched[i] = append(c.matched[i], b)
				}
				if len(c.matched[i]) > 0 && out == outDecide {
					wanted = true
					r.require(g, i)
				}
			}
		}
		if wanted {
			r.s.metrics.Changes.Add(1)
		}
	}
}

// require notes the images of change i that decide for g.
func (r *run) require(g *group, i int) {
	if !g.role.ask {
		g.allowed[2*i], g.allowed[2*i+1] = true, true
		return
	}
	w := &r.rows[i]
	switch {
	case w.ch.Kind == sluice.ChangeDelete && !w.ch.OldFull:
		// The named exception: keys only, no decision is possible.
		g.allowed[2*i] = true
		r.t.keysOnly.Do(func() {
			r.s.log.Info("keys of deleted rows reach every subscriber who may select them: without REPLICA IDENTITY FULL no policy can be asked",
				sluice.LogTable, r.t.def.Schema+"."+r.t.def.Name)
		})
	case w.ch.Kind == sluice.ChangeDelete:
		g.need[2*i+1] = true
	default:
		g.need[2*i] = true
		g.need[2*i+1] = w.ch.OldFull
	}
}
