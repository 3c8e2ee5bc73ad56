package changes

import (
	"context"
	"slices"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/policy"
)

// leave puts behind every UPDATE whose whole old row is known a row that stands
// for that one, as if it had been deleted: it goes to those who ask for it, and
// who saw the row before and do not see it any more.
func (r *run) leave() {
	rows := make([]row, 0, 2*len(r.rows))
	for _, w := range r.rows {
		rows = append(rows, w)
		if w.ch.Kind == sluice.ChangeUpdate && w.ch.OldFull {
			ch := *w.ch
			ch.Kind, ch.New = sluice.ChangeDelete, nil
			rows = append(rows, row{
				ch: &ch, commit: w.commit, index: w.index, time: w.time, old: w.old, encoded: map[encodeKey][]byte{}, update: len(rows), place: w.place + 1,
			})
		}
	}
	r.rows = rows
}

// left finds who no longer sees the row of an UPDATE, which stands before i. It
// returns the images that tier 2 has to decide.
func (r *run) left(ctx context.Context, cl *class, i int) (set []int) {
	now := r.rows[i].update - 1
	tier := cl.role.tier()
	for _, s := range cl.left {
		h := hit{cl: cl, g: s.g, c: s.c, out: outDecide, old: true, matched: r.leaving(ctx, cl, s.c, i)}
		if len(h.matched) == 0 {
			continue
		}
		stays := r.inView(ctx, cl, h.matched, now)
		switch {
		case !cl.role.ask:
			if !stays {
				r.rows[i].hits = append(r.rows[i].hits, h)
			}
		case tier == policy.TierConstant:
		case tier == policy.TierSet && !s.g.bound.Odd():
			set = []int{2*i + 1, 2 * now}
		case tier == policy.TierPredicate:
			r.leftPredicate(ctx, cl, i, now, stays, h)
		default:
			r.leftPending(cl, i, now, stays, h)
		}
	}
	return set
}

// leaving returns the bindings that wanted the old row.
func (r *run) leaving(ctx context.Context, cl *class, c *candidate, i int) []*binding {
	return slices.DeleteFunc(slices.Clone(r.matched(ctx, cl, c, i, outDecide)), func(b *binding) bool { return !b.left })
}

// inView reports whether the new row meets the filters of one of some bindings.
func (r *run) inView(ctx context.Context, cl *class, bindings []*binding, now int) bool {
	return slices.ContainsFunc(bindings, func(b *binding) bool { return r.passes(ctx, &r.rows[now], cl.role, b.filters) })
}

func (r *run) leftPredicate(ctx context.Context, cl *class, i, now int, stays bool, h hit) {
	p := cl.role.plan
	before := p.Row(r.rows[i].old)
	after := p.Row(r.values(ctx, p, &r.rows[now], 2*now))
	saw, sees := cl.judge.See(h.g.bound, &before), policy.No
	if stays {
		sees = cl.judge.See(h.g.bound, &after)
	}
	switch {
	case saw == policy.No || sees == policy.Yes:
	case saw == policy.Unsure || sees == policy.Unsure:
		r.leftPending(cl, i, now, stays, h)
	default:
		r.rows[i].hits = append(r.rows[i].hits, h)
	}
}

// leftPending asks as the user about the old row, and about the new one when the
// filters let it through.
func (r *run) leftPending(cl *class, i, now int, stays bool, h hit) {
	h.pending = true
	r.pend(cl, h.g, 2*i+1)
	if stays {
		h.unless = 2*now + 1
		r.pend(cl, h.g, 2*now)
	}
	r.rows[i].hits = append(r.rows[i].hits, h)
}

// giveLeft takes the answers of tier 2 for the rows of left.
func (r *run) giveLeft(ctx context.Context, cl *class, i int, before, after *audience) {
	now := r.rows[i].update - 1
	unknown := before != nil && before.unknown || after != nil && after.unknown
	for _, s := range cl.left {
		h := hit{cl: cl, g: s.g, c: s.c, out: outDecide, old: true, matched: r.leaving(ctx, cl, s.c, i)}
		if len(h.matched) == 0 || s.g.bound.Odd() {
			continue // the odd are asked as users
		}
		stays := r.inView(ctx, cl, h.matched, now)
		switch {
		case unknown:
			r.leftPending(cl, i, now, stays, h)
		case before.sees(s.g) && !(stays && after.sees(s.g)):
			r.rows[i].hits = append(r.rows[i].hits, h)
		}
	}
}
