package policytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

// Tier3 asks as the user, as package changes does: with its SQL for definitions
// and privileges, its settings, and an error halving the batch.
type Tier3 struct{}

// Name implements Decider.
func (Tier3) Name() string { return "3" }

// Gap accepts what reading a policy's text again costs.
func (Tier3) Gap(gap string) bool { return gap == GapUsage || gap == GapSystem }

// changesSQL reads a statement of package changes.
func changesSQL(name string) (string, error) {
	_, file, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(file), "..", "..", "changes", "sql", name))
	return string(text), err
}

type definition struct {
	Schema     string          `json:"schema"`
	Name       string          `json:"name"`
	Guard      *int64          `json:"guard"`
	Alias      string          `json:"alias"`
	Force      bool            `json:"force"`
	GuardOwner int64           `json:"guardOwner"`
	Columns    []column        `json:"columns"`
	Policies   []policy.Policy `json:"policies"`
}

type column struct {
	Name string `json:"name"`
	Num  int    `json:"num"`
	Key  bool   `json:"key"`
}

func define(ctx context.Context, w *World) (*definition, *policy.Table, error) {
	sql, err := changesSQL("table.sql")
	if err != nil {
		return nil, nil, err
	}
	var d definition
	err = pgx.BeginTxFunc(ctx, w.Admin, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local search_path to "+searchPath); err != nil {
			return err
		}
		var text []byte
		if err := tx.QueryRow(ctx, sql, w.OID).Scan(&text); err != nil {
			return err
		}
		return json.Unmarshal(text, &d)
	})
	t := &policy.Table{Schema: d.Schema, Name: d.Name, Alias: d.Alias, Policies: d.Policies}
	for _, c := range d.Columns {
		t.Columns = append(t.Columns, c.Name)
	}
	return &d, t, err
}

// grant is what a role may do: sql is the check, unless all is decided.
type grant struct {
	sql    string
	answer Answer
}

func (d *definition) grant(ctx context.Context, w *World, t *policy.Table, role string) (grant, error) {
	sql, err := changesSQL("role.sql")
	if err != nil {
		return grant{}, err
	}
	var r struct {
		Usage    bool     `json:"usage"`
		Bypass   bool     `json:"bypass"`
		Owner    bool     `json:"owner"`
		Columns  []int    `json:"columns"`
		Policies []string `json:"policies"`
	}
	guard := int64(0)
	if d.Guard != nil {
		guard = *d.Guard
	}
	var text []byte
	switch err := w.Admin.QueryRow(ctx, sql, role, w.OID, guard, d.GuardOwner).Scan(&text); {
	case errors.Is(err, pgx.ErrNoRows):
		return grant{answer: No}, nil
	case err != nil:
		return grant{}, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return grant{}, err
	}
	hidden := slices.ContainsFunc(d.Columns, func(c column) bool { return c.Key && !slices.Contains(r.Columns, c.Num) })
	if !r.Usage || hidden {
		return grant{answer: No}, nil
	}
	if d.Guard == nil || r.Bypass || r.Owner && !d.Force {
		return grant{answer: Yes}, nil
	}
	var applicable []int
	for i, p := range d.Policies {
		if slices.Contains(r.Policies, p.Name) {
			applicable = append(applicable, i)
		}
	}
	return grant{sql: t.CheckSQL(applicable), answer: No}, nil
}

// Decide implements Decider.
func (Tier3) Decide(ctx context.Context, w *World) ([][]Answer, error) {
	d, t, err := define(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("define: %w", err)
	}
	elements := make([][]byte, len(w.Images))
	for r, values := range w.Images {
		elements[r] = policy.AppendRow(nil, values)
	}
	out := make([][]Answer, len(w.Identities))
	grants := map[string]grant{}
	asked := map[string][]int{} // identities by statement
	for i, id := range w.Identities {
		role := id.Claims.Role
		g, known := grants[role]
		if !known {
			if g, err = d.grant(ctx, w, t, role); err != nil {
				return nil, fmt.Errorf("privileges of %q: %w", role, err)
			}
			grants[role] = g
		}
		out[i] = slices.Repeat([]Answer{g.answer}, len(w.Keys))
		if g.sql != "" {
			asked[g.sql] = append(asked[g.sql], i)
		}
	}
	for sql, who := range asked {
		a := asker{w: w, sql: sql, elements: elements}
		if err := a.ask(ctx, who, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// asker asks one statement.
type asker struct {
	w        *World
	sql      string
	elements [][]byte
}

// part is what one check is about: rows of an identity.
type part struct {
	identity int
	rows     []int
}

// ask halves what raises an error, as package changes does, for all identities at
// once. Where no row at all raises one, every row does.
func (a *asker) ask(ctx context.Context, who []int, out [][]Answer) error {
	all := make([]int, len(a.elements))
	for r := range all {
		all[r] = r
	}
	var parts, none []part
	for _, i := range who {
		parts = append(parts, part{i, all})
	}
	failed, err := a.each(ctx, parts, out)
	if err != nil {
		return err
	}
	for _, p := range failed {
		none = append(none, part{p.identity, nil})
	}
	hopeless, err := a.each(ctx, none, out)
	if err != nil {
		return err
	}
	failed = slices.DeleteFunc(failed, func(p part) bool {
		return slices.ContainsFunc(hopeless, func(h part) bool { return h.identity == p.identity })
	})
	for len(failed) > 0 {
		parts = parts[:0]
		for _, p := range failed {
			if half := len(p.rows) / 2; half > 0 {
				parts = append(parts, part{p.identity, p.rows[:half]}, part{p.identity, p.rows[half:]})
			}
		}
		if failed, err = a.each(ctx, parts, out); err != nil {
			return err
		}
	}
	return nil
}

// each notes the answers and returns the parts that raise an error.
func (a *asker) each(ctx context.Context, parts []part, out [][]Answer) (failed []part, err error) {
	checks := make([]pg.EachCheck, len(parts))
	for n, p := range parts {
		rows := []byte{'{'}
		for k, r := range p.rows {
			if k > 0 {
				rows = append(rows, ',')
			}
			rows = append(rows, a.elements[r]...)
		}
		checks[n] = pg.EachCheck{Claims: a.w.Identities[p.identity].Claims, Args: [][]byte{append(rows, '}')}}
	}
	res, err := a.w.User.AsEach(ctx, a.sql, checks, pg.AsOptions{
		Settings: []pg.Setting{{Name: "search_path", Value: searchPath}, {Name: "plan_cache_mode", Value: "force_custom_plan"}},
	})
	if err != nil {
		return nil, err
	}
	for n, p := range parts {
		if res[n].Err != nil {
			failed = append(failed, p)
			continue
		}
		policy.Visible(res[n].Rows, len(p.rows), func(at int) { out[p.identity][p.rows[at]] = Yes })
	}
	return failed, nil
}
