package policytest

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

// searchPath is what package changes asks under.
const searchPath = "public, extensions"

// plan is how PostgreSQL is made to plan a select: of the whole table, and of one
// row. That one's row must be found by an index, before a policy is evaluated on
// another, whose error would be taken for its own: the planner sees to it as long
// as the table was not analyzed and it may use the index.
type plan struct{ whole, row []pg.Setting }

// plans are ways to plan another way.
var plans = []plan{
	{whole: []pg.Setting{{Name: "enable_seqscan", Value: "off"}}, row: []pg.Setting{{Name: "enable_seqscan", Value: "off"}}},
	{whole: []pg.Setting{{Name: "enable_indexscan", Value: "off"}, {Name: "enable_bitmapscan", Value: "off"}, {Name: "enable_indexonlyscan", Value: "off"}}},
}

// oracle asks PostgreSQL.
type oracle struct {
	w    *World
	plan plan
}

// options are those of package changes, and more. Statements that are prepared are
// planned at each use all the same, which takes a parameter.
func options(more []pg.Setting) pg.AsOptions {
	return pg.AsOptions{Rollback: true, Settings: append([]pg.Setting{{Name: "search_path", Value: searchPath}, {Name: "plan_cache_mode", Value: "force_custom_plan"}}, more...)}
}

// Ask returns what PostgreSQL shows: each identity selects, by a statement that is
// planned for its claims; where that raises an error, row by row, and the rows
// that raise one are not shown.
func Ask(ctx context.Context, w *World) ([][]Answer, error) { return ask(ctx, w, plan{}) }

// reconcile asks again under other plans where got is wrong. Whether something is
// computed that raises an error can depend on the plan: within a sub-select, and
// for the planner's estimates, which a plan that is kept for others has behind it.
// What PostgreSQL answers under one of them is not wrong. It puts such answers
// into want and returns how many there are.
func reconcile(ctx context.Context, w *World, want, got [][]Answer) (n int64, err error) {
	accept := func(i int, other []Answer) (left bool) {
		for r := range want[i] {
			if i >= len(got) || r >= len(got[i]) || got[i][r] == want[i][r] {
				continue
			}
			if got[i][r] != other[r] {
				left = true
				continue
			}
			want[i][r] = other[r]
			n++
		}
		return left
	}
	for _, p := range plans {
		other, err := ask(ctx, w, p)
		if err != nil {
			return n, err
		}
		for i := range want {
			accept(i, other[i])
		}
	}
	for i := range want {
		if !accept(i, want[i]) {
			continue
		}
		other, err := askKept(ctx, w, i)
		if err != nil {
			return n, err
		}
		accept(i, other)
	}
	return n, nil
}

// askKept returns what identity i sees by a statement that was planned for somebody
// of its role without claims, as a pool of connections that prepares statements
// has it.
func askKept(ctx context.Context, w *World, i int) ([]Answer, error) {
	id := w.Identities[i].Claims
	out := make([]Answer, len(w.Keys))
	err := w.User.As(ctx, id, options(nil), func(ctx context.Context, tx pg.Tx) error {
		claims := func(payload, sub string) error {
			_, err := tx.Exec(ctx, "select set_config('request.jwt.claims', $1, true), set_config('request.jwt.claim.sub', $2, true)", pgx.QueryExecModeExec, payload, sub)
			return err
		}
		if err := claims("{}", ""); err != nil {
			return err
		}
		for _, sql := range []string{
			"set local plan_cache_mode = force_generic_plan",
			"prepare policytest_row (integer) as select from " + w.Table + " where " + w.Key + " = $1",
			"savepoint one", "explain execute policytest_row (1)",
		} {
			if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeExec); err != nil {
				return err
			}
		}
		if err := claims(string(id.JSON), id.Subject); err != nil {
			return err
		}
		for r, k := range w.Keys {
			tag, err := tx.Exec(ctx, "execute policytest_row ("+k+")", pgx.QueryExecModeExec)
			if err == nil && tag.RowsAffected() == 1 {
				out[r] = Yes
			}
			if err != nil { // takes no settings back that are older
				if _, err := tx.Exec(ctx, "rollback to one; select set_config('request.jwt.claims', "+sqlString(string(id.JSON))+", true), set_config('request.jwt.claim.sub', "+sqlString(id.Subject)+", true)", pgx.QueryExecModeSimpleProtocol); err != nil {
					return err
				}
			}
		}
		_, err := tx.Exec(ctx, "deallocate policytest_row", pgx.QueryExecModeExec)
		return err
	})
	if pg.SQLState(err) != "" {
		return make([]Answer, len(w.Keys)), nil // it cannot be planned without claims either
	}
	return out, err
}

func ask(ctx context.Context, w *World, p plan) ([][]Answer, error) {
	o := oracle{w, p}
	out := make([][]Answer, len(w.Identities))
	whole := make([]pg.EachCheck, len(w.Identities))
	for i, id := range w.Identities {
		out[i] = make([]Answer, len(w.Keys))
		whole[i] = pg.EachCheck{Claims: id.Claims, Args: [][]byte{[]byte("1")}}
	}
	res, err := o.each(ctx, " where $1::integer > 0", p.whole, whole)
	if err != nil {
		return nil, err
	}
	if err := o.compareAs(ctx, res); err != nil {
		return nil, err
	}
	var failed []int
	for i := range res {
		if res[i].Err != nil {
			failed = append(failed, i)
			continue
		}
		for _, row := range res[i].Rows {
			out[i][slices.Index(w.Keys, string(row[0]))] = Yes
		}
	}
	return out, o.rows(ctx, failed, out)
}

func (o oracle) each(ctx context.Context, where string, settings []pg.Setting, checks []pg.EachCheck) ([]pg.EachResult, error) {
	return o.w.User.AsEach(ctx, "select "+o.w.Key+" from "+o.w.Table+where, checks, options(settings))
}

// compareAs asks as one of the identities by pg.As as well, as a request would.
func (o oracle) compareAs(ctx context.Context, each []pg.EachResult) error {
	w := o.w
	if len(each) == 0 {
		return nil
	}
	i := int(w.Seed+uint64(len(w.Policies))) % len(each)
	n := 0
	err := w.User.As(ctx, w.Identities[i].Claims, options(o.plan.whole), func(ctx context.Context, tx pg.Tx) error {
		return tx.QueryRow(ctx, "select count(*) from (select "+w.Key+" from "+w.Table+" offset 0) x", pgx.QueryExecModeExec).Scan(&n)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if (err != nil) != (each[i].Err != nil) || err == nil && n != len(each[i].Rows) {
		return fmt.Errorf("as %s pg.As sees %d rows (%v), pg.AsEach %d (%v)", w.Identities[i].Claims.JSON, n, err, len(each[i].Rows), each[i].Err)
	}
	return nil
}

// rows asks for one row at a time as those for whom the whole fails. A select
// that fails without a row is one that cannot be planned, and fails for each.
func (o oracle) rows(ctx context.Context, failed []int, out [][]Answer) error {
	w := o.w
	where := " where " + w.Key + " = $1::integer"
	none := make([]pg.EachCheck, len(failed))
	for n, i := range failed {
		none[n] = pg.EachCheck{Claims: w.Identities[i].Claims, Args: [][]byte{[]byte("-1")}}
	}
	probe, err := o.each(ctx, where, o.plan.row, none)
	if err != nil {
		return err
	}
	for n, i := range failed {
		if probe[n].Err != nil {
			continue
		}
		checks := make([]pg.EachCheck, len(w.Keys))
		for r, k := range w.Keys {
			checks[r] = pg.EachCheck{Claims: w.Identities[i].Claims, Args: [][]byte{[]byte(k)}}
		}
		res, err := o.each(ctx, where, o.plan.row, checks)
		if err != nil {
			return err
		}
		for r := range res {
			if res[r].Err == nil && len(res[r].Rows) == 1 {
				out[i][r] = Yes
			}
		}
	}
	return nil
}
