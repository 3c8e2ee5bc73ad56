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

// settings of the oracle. The rows of one key are found by the key alone, before
// a policy is evaluated, so that another row's error is not taken for its own.
var settings = []pg.Setting{{Name: "search_path", Value: searchPath}, {Name: "enable_seqscan", Value: "off"}}

// Ask returns what PostgreSQL shows: each identity selects, by a statement that is
// planned for its claims; where that raises an error, row by row, and the rows
// that raise one are not shown.
func Ask(ctx context.Context, w *World) ([][]Answer, error) {
	out := make([][]Answer, len(w.Identities))
	whole := make([]pg.EachCheck, len(w.Identities))
	for i, id := range w.Identities {
		out[i] = make([]Answer, len(w.Keys))
		whole[i].Claims = id.Claims
	}
	res, err := askEach(ctx, w, "", whole)
	if err != nil {
		return nil, err
	}
	if err := compareAs(ctx, w, res); err != nil {
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
	return out, askRows(ctx, w, failed, out)
}

func askEach(ctx context.Context, w *World, where string, checks []pg.EachCheck) ([]pg.EachResult, error) {
	return w.User.AsEach(ctx, "select "+w.Key+" from "+w.Table+where, checks, pg.AsOptions{Settings: settings})
}

// compareAs asks as one of the identities by pg.As as well, as a request would.
func compareAs(ctx context.Context, w *World, each []pg.EachResult) error {
	if len(each) == 0 {
		return nil
	}
	i := int(w.Seed+uint64(len(w.Policies))) % len(each)
	n := 0
	err := w.User.As(ctx, w.Identities[i].Claims, pg.AsOptions{Rollback: true, Settings: settings}, func(ctx context.Context, tx pg.Tx) error {
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

// askRows asks for one row at a time as those for whom the whole fails. A select
// that fails without a row is one that cannot be planned, and fails for each.
func askRows(ctx context.Context, w *World, failed []int, out [][]Answer) error {
	where := " where " + w.Key + " = $1::integer"
	none := make([]pg.EachCheck, len(failed))
	for n, i := range failed {
		none[n] = pg.EachCheck{Claims: w.Identities[i].Claims, Args: [][]byte{[]byte("-1")}}
	}
	probe, err := askEach(ctx, w, where, none)
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
		res, err := askEach(ctx, w, where, checks)
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
