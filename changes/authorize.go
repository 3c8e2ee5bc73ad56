package changes

import (
	"context"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

// visibleSQL tells whether all of some transactions ($1) are visible. The driver
// prepares it.
const visibleSQL = "select bool_and(pg_visible_in_snapshot(x, pg_current_snapshot())) from unnest($1::text[]::xid8[]) x"

// searchPath is what functions called by policies run under; the policies' own
// text is qualified.
const searchPath = "public, extensions"

// Bounds of the identities of one transaction. Fewer than the first are not worth
// a second connection.
const (
	identitiesApart  = 32
	identitiesAtOnce = 256
	// On the worker of one table: a few slow ones must not keep the connection
	// from other tables that are slow.
	identitiesOwn = 8
)

// authorize asks the policies of everybody who has to be asked: as that role,
// with those claims, over the very images that would be delivered, in one flush
// for many identities, on several connections for very many. Whatever goes wrong
// is a no, for the smallest unit.
func (r *run) authorize(ctx context.Context) {
	asked := map[string][]*asking{} // by statement
	for _, a := range r.asking {
		if a.role.sql != "" {
			asked[a.role.sql] = append(asked[a.role.sql], a)
		}
	}
	if len(asked) == 0 {
		return
	}
	if !r.waitVisible(ctx) {
		return
	}
	images := r.renderImages(ctx, slices.Collect(maps.Values(r.asking)))
	var parts errgroup.Group // each ends with its answer, at the latest with ctx
	parts.SetLimit(r.s.cfg.Parallel)
	for sql, groups := range asked {
		size := min(max((len(groups)+r.s.cfg.Parallel-1)/r.s.cfg.Parallel, identitiesApart), identitiesAtOnce)
		if r.own {
			size = identitiesOwn
		}
		for part := range slices.Chunk(groups, size) {
			parts.Go(func() error {
				r.ask(ctx, sql, part, images)
				return nil
			})
		}
	}
	_ = parts.Wait() // what goes wrong is noted as a no
}

// waitVisible waits until queries can see the transactions: the log shows a
// commit before other connections do, and a policy asked too early would miss
// the membership that was written together with the row, a look-up the row. It
// waits once in a run, and reports false when that was in vain: then the run
// decides nothing.
func (r *run) waitVisible(ctx context.Context) bool {
	if r.waited {
		return !r.invisible
	}
	r.waited = true
	r.invisible = !r.s.untilVisible(ctx, func() (visible bool) {
		err := r.s.persist(ctx, func() error {
			err := r.s.cfg.Admin.QueryRow(ctx, visibleSQL, r.xids).Scan(&visible)
			return pg.Wrap(err, "ask whether transactions %v are visible", r.xids)
		})
		if err != nil && ctx.Err() == nil {
			r.s.warn("slow commit", "visible", "whether a commit is visible cannot be found out", err)
		}
		return err == nil && visible
	})
	return !r.invisible
}

// ask runs the statement as every group and notes the answers.
func (r *run) ask(ctx context.Context, sql string, groups []*asking, images [][]byte) {
	checks := make([]pg.EachCheck, len(groups))
	want := make([][]int, len(groups))
	for i, g := range groups {
		want[i] = judgable(g, images)
		checks[i] = pg.EachCheck{Claims: g.g.claims, Args: [][]byte{arrayOf(images, want[i])}}
		r.s.metrics.Tiers[policy.TierUser].Add(int64(len(want[i])))
	}
	res := r.each(ctx, sql, checks)
	for i, g := range groups {
		if res == nil {
			g.erred = true
			continue // nobody was judged: nobody sees anything
		}
		r.note(ctx, sql, g, want[i], res[i], images)
	}
}

// each asks until the database answers.
func (r *run) each(ctx context.Context, sql string, checks []pg.EachCheck) []pg.EachResult {
	if r.own {
		select {
		case r.s.workers.slots <- struct{}{}:
			defer func() { <-r.s.workers.slots }()
		case <-ctx.Done():
			return nil
		}
	}
	var res []pg.EachResult
	opt := pg.AsOptions{
		StatementTimeout: r.s.cfg.CheckTimeout,
		// A select of the row plans its policies for its user, and may fail in
		// that; a plan that was made for another does not.
		Settings: []pg.Setting{{Name: "search_path", Value: searchPath}, {Name: "plan_cache_mode", Value: "force_custom_plan"}},
	}
	err := r.s.persist(ctx, func() (err error) {
		res, err = r.s.cfg.User.AsEach(ctx, sql, checks, opt)
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			r.s.metrics.DeniedByError.Add(int64(len(checks)))
			r.s.log.Error("policies could not be asked; nobody receives the change", sluice.LogTable, r.t.def.Schema+"."+r.t.def.Name, sluice.LogError, err)
		}
		return nil
	}
	return res
}

// renderImages returns, by image, the array elements of those that somebody
// needs; an empty one is not complete.
func (r *run) renderImages(ctx context.Context, all []*asking) [][]byte {
	images := make([][]byte, 2*len(r.rows))
	for k := range images {
		for _, a := range all {
			if a.need[k] {
				images[k] = r.element(ctx, k)
				break
			}
		}
	}
	return images
}

// judgable returns the images that g needs and that are complete.
func judgable(g *asking, images [][]byte) []int {
	var out []int
	for k, need := range g.need {
		if need && len(images[k]) > 0 {
			out = append(out, k)
		}
	}
	return out
}

// element renders image k; empty, not nil, when a value is missing that nobody
// knows.
func (r *run) element(ctx context.Context, k int) []byte {
	w := &r.rows[k/2]
	image := w.old
	if k%2 == 0 {
		image = r.complete(ctx, w)
	}
	values := make([][]byte, len(image))
	for i, v := range image {
		switch v.Kind {
		case sluice.ValueMissing:
			return []byte{}
		case sluice.ValueText:
			if values[i] = v.Text; values[i] == nil {
				values[i] = []byte{}
			}
		}
	}
	return policy.AppendRow(nil, values)
}

func arrayOf(images [][]byte, which []int) []byte {
	out := []byte{'{'}
	for i, k := range which {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, images[k]...)
	}
	return append(out, '}')
}

// maxSplits bounds how often a run looks for the rows whose policies take too
// long: each look costs the timeout.
const maxSplits = 16

// note takes one identity's answers. An error costs only the rows that raise it:
// the batch is halved until they are found. For those that take too long the
// table's own worker does so, and a bounded number of times.
func (r *run) note(ctx context.Context, sql string, g *asking, which []int, res pg.EachResult, images [][]byte) {
	if res.Err == nil {
		policy.Visible(res.Rows, len(which), func(at int) { g.allowed[which[at]] = true })
		return
	}
	if ctx.Err() != nil {
		return
	}
	r.failed.Store(true)
	g.erred = true
	slow := pg.SQLState(res.Err) == stateTimeout
	if slow && len(which) > 1 && !r.own {
		r.tooSlow.Store(true) // others wait here
		return
	}
	if len(which) > 1 && !slow && !g.planned {
		// Claims may be such that the statement fails whatever the rows are.
		g.planned = true
		none := r.each(ctx, sql, []pg.EachCheck{{Claims: g.g.claims, Args: [][]byte{[]byte("{}")}}})
		g.hopeless = none != nil && none[0].Err != nil
	}
	if len(which) <= 1 || g.hopeless || slow && r.splits.Add(1) > maxSplits {
		if slow {
			g.timedOut = true
			r.timedOut.Store(true)
		}
		r.s.metrics.DeniedByError.Add(int64(len(which)))
		if r.s.noisy.allow("policy " + r.t.def.Schema + "." + r.t.def.Name + " " + g.g.claims.Role) {
			r.s.log.Warn("a policy raised an error, which counts as no", sluice.LogTable, r.t.def.Schema+"."+r.t.def.Name,
				sluice.LogRole, g.g.claims.Role, sluice.LogCode, sluice.CodePolicyError, sluice.LogError, res.Err)
		}
		return
	}
	for _, part := range [][]int{which[:len(which)/2], which[len(which)/2:]} {
		again := r.each(ctx, sql, []pg.EachCheck{{Claims: g.g.claims, Args: [][]byte{arrayOf(images, part)}}})
		if again == nil {
			return
		}
		r.note(ctx, sql, g, part, again[0], images)
	}
}
