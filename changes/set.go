package changes

import (
	"context"
	"strconv"

	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

// openLimit bounds the result of a statement that does not say who asks: a table
// may have many more members than there are subscribers. Past it the statement
// that says so is used, for the next denseRuns runs as well.
const (
	openLimit = 20000
	denseRuns = 256
)

// decideSet decides images at tier 2, in one statement for the whole class.
func (r *run) decideSet(ctx context.Context, cl *class, images []int) {
	if !r.waitVisible(ctx) {
		return
	}
	texts := make(map[int][]byte, len(images))
	var complete []int
	for _, k := range images {
		// An image that lacks a value nobody knows is seen by nobody.
		if text := r.element(ctx, k); len(text) > 0 {
			texts[k] = text
			complete = append(complete, k)
		}
	}
	seen := map[int]*audience{}
	r.askSet(ctx, cl, complete, texts, seen)
	r.sampleSet(cl, complete, seen)
	for _, k := range images {
		i := k / 2
		switch {
		case k != decisive(&r.rows[i], i):
			continue
		case r.rows[i].update > 0:
			r.giveLeft(ctx, cl, i, seen[k], seen[2*(r.rows[i].update-1)])
			continue
		}
		r.giveSet(ctx, cl, i, seen[k], seen[2*i+1])
	}
}

// audience is who sees an image.
type audience struct {
	all     bool // but the odd
	groups  map[*group]bool
	unknown bool // PostgreSQL raised an error: everybody is asked as the user
}

func (a *audience) sees(g *group) bool { return a != nil && (a.all || a.groups[g]) }

// giveSet gives change i to those who see its decisive image.
func (r *run) giveSet(ctx context.Context, cl *class, i int, now, before *audience) {
	w := &r.rows[i]
	unknown := now != nil && now.unknown || before != nil && before.unknown
	each := func(g *group) {
		if unknown {
			r.give(ctx, cl, g, i, hit{out: outDecide, pending: true})
			return
		}
		r.give(ctx, cl, g, i, hit{out: outDecide, old: decisive(w, i) == 2*i && before.sees(g)})
	}
	switch {
	case now == nil:
	case unknown, now.all:
		for _, g := range cl.groups {
			if unknown || g.bound != nil && !g.bound.Odd() {
				each(g)
			}
		}
	default:
		for g := range now.groups {
			each(g)
		}
	}
	if !unknown {
		for _, g := range cl.odd {
			r.give(ctx, cl, g, i, hit{out: outDecide, pending: true})
		}
	}
}

// askSet asks about images; an error costs only those that raise it.
func (r *run) askSet(ctx context.Context, cl *class, images []int, texts map[int][]byte, seen map[int]*audience) {
	if len(images) == 0 || len(cl.asking) == 0 {
		return
	}
	list := []byte{'{'}
	for n, k := range images {
		if n > 0 {
			list = append(list, ',')
		}
		list = append(list, texts[k]...)
	}
	list = append(list, '}')
	r.s.metrics.Tiers[policy.TierSet].Add(int64(len(images)) * int64(len(cl.asking)))
	rows, open, err := r.runSet(ctx, cl, list)
	switch {
	case ctx.Err() != nil:
		return
	case err == nil:
		r.noteSet(cl, images, rows, open, seen)
		return
	case len(images) > 1 && pg.SQLState(err) != stateTimeout:
		r.failed.Store(true)
		r.askSet(ctx, cl, images[:len(images)/2], texts, seen)
		r.askSet(ctx, cl, images[len(images)/2:], texts, seen)
		return
	}
	r.failed.Store(true)
	r.s.metrics.SetErrors.Add(int64(len(images)))
	for _, k := range images {
		seen[k] = &audience{unknown: true}
	}
}

const stateTimeout = "57014"

// runSet runs the statement of the plan; open tells which of the two.
func (r *run) runSet(ctx context.Context, cl *class, list []byte) (rows [][][]byte, open bool, err error) {
	p := cl.role.plan
	dense := cl.role.dense.Load()
	if dense > 0 {
		cl.role.dense.Add(-1)
	}
	if p.OpenSQL != "" && dense == 0 && len(cl.asking) > 1 {
		limit := strconv.Itoa(openLimit)
		rows, err = r.ownStatement(ctx, pg.Statement{SQL: p.OpenSQL, Args: [][]byte{list, []byte(limit)}})
		if err != nil || len(rows) < openLimit {
			return rows, true, err
		}
		cl.role.dense.Store(denseRuns)
	}
	bounds := make([]*policy.Bound, len(cl.asking))
	for i, groups := range cl.asking {
		bounds[i] = groups[0].bound
	}
	rows, err = r.ownStatement(ctx, pg.Statement{SQL: p.SQL, Args: p.SetArgs(list, bounds)})
	return rows, false, err
}

// ownStatement runs a statement of tier 2 until the database answers.
func (r *run) ownStatement(ctx context.Context, st pg.Statement) (rows [][][]byte, err error) {
	err = r.s.persist(ctx, func() (err error) {
		rows, err = r.s.cfg.Admin.ReadOnly(ctx, r.s.cfg.CheckTimeout, r.t.settings, st)
		return err
	})
	return rows, err
}

// noteSet notes who sees which image.
func (r *run) noteSet(cl *class, images []int, rows [][][]byte, open bool, seen map[int]*audience) {
	for _, row := range rows {
		n, err := strconv.Atoi(string(row[0]))
		if err != nil || n < 1 || n > len(images) {
			continue // not from our statement
		}
		a := seen[images[n-1]]
		if a == nil {
			a = &audience{groups: map[*group]bool{}}
			seen[images[n-1]] = a
		}
		var who []*group
		switch {
		case row[1] == nil:
			a.all = true
		case open:
			who = cl.bySlot[string(row[1])]
		default:
			if g, err := strconv.Atoi(string(row[1])); err == nil && g >= 1 && g <= len(cl.asking) {
				who = cl.asking[g-1]
			}
		}
		for _, g := range who {
			a.groups[g] = true
		}
	}
}
