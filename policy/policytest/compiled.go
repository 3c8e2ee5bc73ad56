package policytest

import (
	"context"
	"fmt"
	"strconv"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

// Compiled decides by the tiers below 3, as package changes does: by the predicate,
// or by both statements of a set. Whatever they leave to the user is not theirs.
type Compiled struct{}

// Name implements Decider.
func (Compiled) Name() string { return "compiled" }

// Decide implements Decider.
func (Compiled) Decide(ctx context.Context, w *World) ([][]Answer, error) {
	d, t, err := define(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("define: %w", err)
	}
	settings, err := policy.SessionSettings(ctx, w.User)
	if err != nil {
		return nil, err
	}
	c := &compiled{w: w, settings: settings, out: make([][]Answer, len(w.Identities)), elements: []byte{'{'}}
	for r, values := range w.Images {
		if r > 0 {
			c.elements = append(c.elements, ',')
		}
		c.elements = policy.AppendRow(c.elements, values)
	}
	c.elements = append(c.elements, '}')
	byRole := map[string][]int{}
	for i, id := range w.Identities {
		byRole[id.Claims.Role] = append(byRole[id.Claims.Role], i)
	}
	for role, who := range byRole {
		g, err := d.grant(ctx, w, t, role)
		if err != nil {
			return nil, err
		}
		if g.sql == "" { // privileges and the like are not policy's
			c.all(who, g.answer)
			continue
		}
		plan, err := policy.Compile(ctx, w.Admin, policy.Input{Table: t, Guard: uint32(*d.Guard), Role: role, SearchPath: searchPath})
		if err != nil {
			return nil, fmt.Errorf("compile: %w", err)
		}
		if err := c.decide(ctx, plan, who); err != nil {
			return nil, err
		}
	}
	return c.out, nil
}

type compiled struct {
	w        *World
	settings []pg.Setting
	out      [][]Answer
	elements []byte // all images, as one array
}

func (c *compiled) all(who []int, a Answer) {
	for _, i := range who {
		c.out[i] = make([]Answer, len(c.w.Keys))
		for r := range c.out[i] {
			c.out[i][r] = a
		}
	}
}

func (c *compiled) decide(ctx context.Context, p *policy.Plan, who []int) error {
	c.all(who, NotMine)
	switch p.Tier {
	case policy.TierUser:
		return nil
	case policy.TierSet:
		return c.set(ctx, p, who)
	}
	judge := p.Judge()
	for r, image := range c.w.Images {
		row := p.Row(valuesOf(image))
		key, found, missing := row.Index()
		for _, i := range who {
			b := p.Bind(c.w.Identities[i].Claims)
			a := judge.See(b, &row)
			if p.Indexed() && !b.Odd() && !missing && a == policy.Yes {
				if v, some := b.Index(); !found || !some || v != key {
					return fmt.Errorf("the index hides row %d from %s", r, c.w.Identities[i].Claims.JSON)
				}
			}
			if b.Never() && a == policy.Yes {
				return fmt.Errorf("row %d is seen by somebody who never sees one: %s", r, c.w.Identities[i].Claims.JSON)
			}
			c.out[i][r] = [...]Answer{policy.No: No, policy.Yes: Yes, policy.Unsure: NotMine}[a]
		}
	}
	return nil
}

func valuesOf(image [][]byte) []sluice.Value {
	out := make([]sluice.Value, len(image))
	for i, v := range image {
		if out[i].Kind = sluice.ValueNull; v != nil {
			out[i] = sluice.Value{Kind: sluice.ValueText, Text: v}
		}
	}
	return out
}

// set asks both statements about all rows; one that raises an error decides
// nothing.
func (c *compiled) set(ctx context.Context, p *policy.Plan, who []int) error {
	var asking []int
	var bounds []*policy.Bound
	for _, i := range who {
		if b := p.Bind(c.w.Identities[i].Claims); !b.Odd() {
			asking, bounds = append(asking, i), append(bounds, b)
		}
	}
	if len(asking) == 0 {
		return nil
	}
	closed, err := c.w.Admin.ReadOnly(ctx, 0, c.settings, pg.Statement{SQL: p.SQL, Args: p.SetArgs(c.elements, bounds)})
	switch pg.SQLState(err) {
	case "":
		if err != nil {
			return err
		}
	default:
		return nil // an error of the statement: everybody is asked as the user
	}
	c.all(asking, No)
	for _, row := range closed {
		r, _ := strconv.Atoi(string(row[0]))
		for n, i := range asking {
			if g, _ := strconv.Atoi(string(row[1])); row[1] == nil || g == n+1 {
				c.out[i][r-1] = Yes
			}
		}
	}
	if p.OpenSQL == "" {
		return nil
	}
	return c.open(ctx, p, asking, bounds)
}

// open compares the statement that does not say who asks.
func (c *compiled) open(ctx context.Context, p *policy.Plan, asking []int, bounds []*policy.Bound) error {
	rows, err := c.w.Admin.ReadOnly(ctx, 0, c.settings, pg.Statement{SQL: p.OpenSQL, Args: [][]byte{c.elements, []byte("1000000")}})
	if err != nil {
		if pg.SQLState(err) != "" { // it reads rows that the other does not
			return nil
		}
		return err
	}
	for n, i := range asking {
		me, some := bounds[n].Open()
		got := make([]Answer, len(c.w.Keys))
		for _, row := range rows {
			if r, _ := strconv.Atoi(string(row[0])); row[1] == nil || some && string(row[1]) == me {
				got[r-1] = Yes
			}
		}
		for r := range got {
			if (got[r] == Yes) != (c.out[i][r] == Yes) {
				return fmt.Errorf("row %d, %s: the open statement says %v, the closed one %v\n%s", r, c.w.Identities[i].Claims.JSON, got[r], c.out[i][r], p.OpenSQL)
			}
			if got[r] == Yes && bounds[n].Never() {
				return fmt.Errorf("row %d is seen by somebody who never sees one: %s", r, c.w.Identities[i].Claims.JSON)
			}
		}
	}
	return nil
}
