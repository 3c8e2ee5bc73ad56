package changes

import (
	"context"
	"math/rand/v2"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/policy"
)

// sample is a decision of a compiled policy that PostgreSQL is asked about as well.
type sample struct {
	cl    *class
	g     *group
	image int
	seen  bool
}

// sampled returns one of those who were decided about, now and then.
func (r *run) sampled(cl *class) *group {
	if r.s.cfg.Verify <= 0 || rand.Float64() >= r.s.cfg.Verify {
		return nil
	}
	g := cl.groups[rand.IntN(len(cl.groups))]
	if g.bound == nil || g.bound.Odd() {
		return nil
	}
	return g
}

// verify asks PostgreSQL about the samples, as the users. It reports false when a
// compiled policy has decided otherwise: that is a fault of Sluice, and the
// policy is asked as the user from then on.
func (r *run) verify(ctx context.Context) bool {
	if len(r.samples) == 0 {
		return true
	}
	if !r.waitVisible(ctx) {
		return true
	}
	all := make([]*asking, len(r.samples))
	for i, s := range r.samples {
		all[i] = r.newAsking(s.cl.role, s.g)
		all[i].need[s.image] = true
	}
	images := r.renderImages(ctx, all)
	good := true
	for i, s := range r.samples {
		if s.cl.role.sql == "" || len(images[s.image]) == 0 {
			continue
		}
		r.ask(ctx, s.cl.role.sql, all[i:i+1], images)
		if ctx.Err() != nil || all[i].erred || all[i].allowed[s.image] == s.seen {
			continue
		}
		good = false
		r.s.metrics.Disagreements.Add(1)
		if !s.cl.role.disabled.Swap(true) {
			r.s.log.Error("a compiled policy and PostgreSQL disagree; the table is decided as the user from now on. Please report this",
				sluice.LogTable, r.t.def.Schema+"."+r.t.def.Name, sluice.LogRole, s.g.claims.Role, "tier", s.cl.role.plan.Tier.String(), "compiled", s.seen)
		}
	}
	return good
}

// sampleSet notes samples of tier 2.
func (r *run) sampleSet(cl *class, images []int, seen map[int]*audience) {
	for _, k := range images {
		if a := seen[k]; a == nil || !a.unknown {
			if g := r.sampled(cl); g != nil {
				r.samples = append(r.samples, sample{cl, g, k, a.sees(g)})
			}
		}
	}
}

// samplePredicate notes a sample of tier 1.
func (r *run) samplePredicate(cl *class, image int, row *policy.Row) {
	if g := r.sampled(cl); g != nil {
		if a := cl.judge.See(g.bound, row); a != policy.Unsure {
			r.samples = append(r.samples, sample{cl, g, image, a == policy.Yes})
		}
	}
}

func (r *run) newAsking(role *tableRole, g *group) *asking {
	return &asking{g: g, role: role, need: make([]bool, 2*len(r.rows)), allowed: make([]bool, 2*len(r.rows))}
}
