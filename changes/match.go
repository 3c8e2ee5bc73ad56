package changes

import (
	"context"
	"slices"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/policy"
)

// outcome says what a role gets of a change before filters and policies.
type outcome uint8

const (
	outNothing  outcome = iota
	outDecide           // filters, then policies
	outNoKey            // error 400 to every candidate
	outNoSelect         // error 401 to every candidate
)

func (r *run) outcome(role *tableRole, w *row) outcome {
	switch {
	case !r.t.published(w.ch.Kind):
		return outNothing
	case !role.usage:
		return outNothing
	case w.ch.Kind == sluice.ChangeDelete:
		// Nobody learns more of a deleted row than its key, and not that without
		// the right to read it.
		if !role.any || !role.keyOK {
			return outNothing
		}
	case len(r.t.key) == 0:
		return outNoKey
	case !role.keyOK:
		return outNoSelect
	}
	return outDecide
}

// hit is a change that a subscription gets, or gets when its pending images are
// allowed.
type hit struct {
	cl      *class
	g       *group
	c       *candidate
	matched []*binding
	out     outcome
	old     bool // the old row may be seen
	pending bool // see run.asking
	// unless is an image, counted from 1, that the group must not see for the hit
	// to hold; see run.asking.
	unless int
}

// asking is somebody who is asked as the user. need and allowed are by image: 2i is
// the new row of change i, 2i+1 the old.
type asking struct {
	g             *group
	role          *tableRole
	need, allowed []bool
	timedOut      bool // a policy took too long
	erred         bool // a policy raised an error, or nobody answered
	// hopeless tells that the statement fails without any row; planned that this
	// was looked into.
	planned, hopeless bool
}

// match finds for each change who wants it and may see it, as far as that is known
// without asking as the user: the filters, and the policies of tiers 0 to 2.
func (r *run) match(ctx context.Context) {
	for _, cl := range r.roster.classes {
		var set []int // images for tier 2
		for i := range r.rows {
			w := &r.rows[i]
			out := r.outcome(cl.role, w)
			switch {
			case out == outNothing:
			case w.update > 0:
				if out == outDecide {
					set = append(set, r.left(ctx, cl, i)...)
				}
			case out != outDecide, !cl.role.ask:
				r.everybody(ctx, cl, i, hit{out: out, old: true})
			case w.ch.Kind == sluice.ChangeDelete && !w.ch.OldFull:
				// The named exception: keys only, no decision is possible.
				r.everybody(ctx, cl, i, hit{out: out})
				r.t.keysOnly.Do(func() {
					r.s.log.Info("keys of deleted rows reach every subscriber who may select them: without REPLICA IDENTITY FULL no policy can be asked",
						sluice.LogTable, r.t.def.Schema+"."+r.t.def.Name)
				})
			default:
				switch cl.role.tier() {
				case policy.TierConstant: // shows nothing, or ask would be false
				case policy.TierPredicate:
					r.predicate(ctx, cl, i)
				case policy.TierSet:
					if r.wanted(ctx, cl, i) {
						set = append(set, decisive(w, i))
						if w.ch.Kind == sluice.ChangeUpdate && w.ch.OldFull {
							set = append(set, 2*i+1)
						}
					}
				default:
					r.everybody(ctx, cl, i, hit{out: out, pending: true})
				}
			}
		}
		if len(set) > 0 {
			slices.Sort(set)
			set = slices.Compact(set)
			r.decideSet(ctx, cl, set)
		}
	}
	for i := range r.rows {
		if len(r.rows[i].hits) > 0 {
			r.s.metrics.Changes.Add(1)
		}
	}
}

// decisive is the image of change i that decides who gets it.
func decisive(w *row, i int) int {
	if w.ch.Kind == sluice.ChangeDelete {
		return 2*i + 1
	}
	return 2 * i
}

// filtered is the image that filters look at.
func (w *row) filtered() []sluice.Value {
	if w.ch.Kind == sluice.ChangeDelete {
		return w.old
	}
	return w.new
}

// matched returns the bindings that want change i.
func (r *run) matched(ctx context.Context, cl *class, c *candidate, i int, out outcome) []*binding {
	w := &r.rows[i]
	if !r.replay && w.commit < sluice.LSN(c.sub.start.Load()) || w.place < r.from[c.sub] {
		return nil
	}
	all := true
	for _, b := range c.bindings {
		if !r.wants(ctx, cl, b, w, out) {
			all = false
			break
		}
	}
	if all {
		return c.bindings
	}
	var some []*binding
	for _, b := range c.bindings {
		if r.wants(ctx, cl, b, w, out) {
			some = append(some, b)
		}
	}
	return some
}

func (r *run) wants(ctx context.Context, cl *class, b *binding, w *row, out outcome) bool {
	return (b.event == 0 || b.event == w.ch.Kind) && (out != outDecide || r.passes(ctx, w, cl.role, b.filters))
}

// wanted reports whether anybody of a class wants change i.
func (r *run) wanted(ctx context.Context, cl *class, i int) bool {
	w := &r.rows[i]
	if cl.every[w.ch.Kind] {
		return true
	}
	found := false
	cl.seats(w.filtered(), func(s seat) {
		found = found || r.matched(ctx, cl, s.c, i, outDecide) != nil
	})
	return found
}

// everybody gives change i to all of a class who want it. Errors have no filters,
// so that those with an equality are asked one and all.
func (r *run) everybody(ctx context.Context, cl *class, i int, h hit) {
	if h.out != outDecide {
		for _, g := range cl.groups {
			r.give(ctx, cl, g, i, h)
		}
		return
	}
	cl.seats(r.rows[i].filtered(), func(s seat) {
		h.g, h.c = s.g, s.c
		r.hit(ctx, cl, i, h)
	})
}

// give gives change i to those of a group who want it.
func (r *run) give(ctx context.Context, cl *class, g *group, i int, h hit) {
	for _, c := range g.subs {
		h.g, h.c = g, c
		r.hit(ctx, cl, i, h)
	}
}

func (r *run) hit(ctx context.Context, cl *class, i int, h hit) {
	if h.matched = r.matched(ctx, cl, h.c, i, h.out); len(h.matched) == 0 {
		return
	}
	h.cl = cl
	w := &r.rows[i]
	w.hits = append(w.hits, h)
	if h.pending {
		r.pend(cl, h.g, decisive(w, i))
		if w.ch.Kind == sluice.ChangeUpdate && w.ch.OldFull {
			r.pend(cl, h.g, 2*i+1)
		}
	}
}

// pend notes that an image decides for a group, as the user.
func (r *run) pend(cl *class, g *group, image int) {
	a := r.asking[g]
	if a == nil {
		a = r.newAsking(cl.role, g)
		r.asking[g] = a
	}
	a.need[image] = true
}

// predicate decides change i at tier 1.
func (r *run) predicate(ctx context.Context, cl *class, i int) {
	w, p := &r.rows[i], cl.role.plan
	now := p.Row(r.values(ctx, p, w, decisive(w, i)))
	var before *policy.Row
	if w.ch.Kind == sluice.ChangeUpdate && w.ch.OldFull {
		before = new(policy.Row)
		*before = p.Row(w.old)
	}
	r.samplePredicate(cl, decisive(w, i), &now)
	pairs := int64(0)
	judge := func(g *group, each func(hit)) {
		pairs++
		switch cl.judge.See(g.bound, &now) {
		case policy.Unsure:
			each(hit{out: outDecide, pending: true})
		case policy.Yes:
			h := hit{out: outDecide}
			if before != nil {
				switch cl.judge.See(g.bound, before) {
				case policy.Unsure:
					h.pending = true
				case policy.Yes:
					h.old = true
				}
			}
			each(h)
		}
	}
	key, found, missing := now.Index()
	if p.Indexed() && !missing {
		if found {
			for _, g := range cl.byIndex[key] {
				judge(g, func(h hit) { r.give(ctx, cl, g, i, h) })
			}
		}
		for _, g := range cl.odd {
			judge(g, func(h hit) { r.give(ctx, cl, g, i, h) })
		}
	} else {
		cl.seats(w.filtered(), func(s seat) {
			if len(r.matched(ctx, cl, s.c, i, outDecide)) == 0 {
				return
			}
			judge(s.g, func(h hit) {
				h.g, h.c = s.g, s.c
				r.hit(ctx, cl, i, h)
			})
		})
	}
	r.s.metrics.Tiers[policy.TierPredicate].Add(pairs)
}

// values returns an image with what its plan reads, as far as that is known.
func (r *run) values(ctx context.Context, p *policy.Plan, w *row, image int) []sluice.Value {
	if image%2 == 1 {
		return w.old
	}
	if p.Lacks(w.new) {
		return r.complete(ctx, w)
	}
	return w.new
}
