package changes

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/backoff"
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
	asked := map[string][]*group{} // by statement
	for _, g := range r.groups {
		if g.role.sql != "" && anyTrue(g.need) {
			asked[g.role.sql] = append(asked[g.role.sql], g)
		}
	}
	if len(asked) == 0 {
		return
	}
	r.waitVisible(ctx)
	images := r.renderImages(ctx)
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

func anyTrue(b []bool) bool {
	for _, v := range b {
		if v {
			return true
		}
	}
	return false
}

// waitVisible waits until queries can see the transactions: the log shows a
// commit before other connections do, and a policy asked too early would miss
// the membership that was written together with the row, a look-up the row. It
// waits once in a run.
func (r *run) waitVisible(ctx context.Context) {
	if r.waited {
		return
	}
	r.waited = true
	wait := backoff.Backoff{Min: 200 * time.Microsecond, Max: 50 * time.Millisecond}
	for until := time.Now().Add(r.s.cfg.VisibleTimeout); ; {
		var visible bool
		err := r.s.persist(ctx, func() error {
			err := r.s.cfg.Admin.QueryRow(ctx, visibleSQL, r.xids).Scan(&visible)
			return pg.Wrap(err, "ask whether transactions %v are visible", r.xids)
		})
		switch {
		case err == nil && visible, ctx.Err() != nil:
			return
		case time.Now().After(until):
			r.s.metrics.NotVisible.Add(1)
			r.s.warn("slow commit", r.t.def.Schema, "a commit is not visible in time; its changes are judged by what is", err)
			return
		}
		r.s.metrics.VisibleRetries.Add(1)
		if wait.Wait(ctx) != nil {
			return
		}
	}
}

// ask runs the statement as every group and notes the answers.
func (r *run) ask(ctx context.Context, sql string, groups []*group, images [][]byte) {
	checks := make([]pg.EachCheck, len(groups))
	want := make([][]int, len(groups))
	for i, g := range groups {
		want[i] = judgable(g, images)
		checks[i] = pg.EachCheck{Claims: g.claims, Args: [][]byte{arrayOf(images, want[i])}}
		r.s.metrics.Decisions.Add(int64(len(want[i])))
	}
	res := r.each(ctx, sql, checks)
	for i, g := range groups {
		if res == nil {
			return // nobody was judged: nobody sees anything
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
		Settings:         []pg.Setting{{Name: "search_path", Value: searchPath}},
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
func (r *run) renderImages(ctx context.Context) [][]byte {
	images := make([][]byte, 2*len(r.rows))
	for k := range images {
		if slices.ContainsFunc(r.groups, func(g *group) bool { return g.need[k] }) {
			images[k] = r.element(ctx, k)
		}
	}
	return images
}

// judgable returns the images that g needs and that are complete.
func judgable(g *group, images [][]byte) []int {
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
func (r *run) note(ctx context.Context, sql string, g *group, which []int, res pg.EachResult, images [][]byte) {
	if res.Err == nil {
		if len(res.Rows) == len(which) {
			for i, row := range res.Rows {
				g.allowed[which[i]] = len(row) == 1 && string(row[0]) == "t"
			}
		}
		return
	}
	if ctx.Err() != nil {
		return
	}
	r.failed.Store(true)
	slow := pg.SQLState(res.Err) == "57014"
	if slow && len(which) > 1 && !r.own {
		r.tooSlow.Store(true) // others wait here
		return
	}
	if len(which) <= 1 || slow && r.splits.Add(1) > maxSplits {
		if slow {
			g.timedOut = true
			r.timedOut.Store(true)
		}
		r.s.metrics.DeniedByError.Add(int64(len(which)))
		if r.s.noisy.allow("policy " + r.t.def.Schema + "." + r.t.def.Name + " " + g.claims.Role) {
			r.s.log.Warn("a policy raised an error, which counts as no", sluice.LogTable, r.t.def.Schema+"."+r.t.def.Name,
				sluice.LogRole, g.claims.Role, sluice.LogCode, sluice.CodePolicyError, sluice.LogError, res.Err)
		}
		return
	}
	for _, part := range [][]int{which[:len(which)/2], which[len(which)/2:]} {
		again := r.each(ctx, sql, []pg.EachCheck{{Claims: g.claims, Args: [][]byte{arrayOf(images, part)}}})
		if again == nil {
			return
		}
		r.note(ctx, sql, g, part, again[0], images)
	}
}
