package policytest

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// shrinker makes a disagreement smaller as long as it stays one.
type shrinker struct {
	e     *Env
	d     Decider
	best  *Disagreement
	tries int
}

// maxTries bounds the worlds that are loaded for one disagreement.
const maxTries = 1500

// minimise returns the smallest world in which d still disagrees. One that does
// not disagree again is returned as it is.
func (e *Env) minimise(ctx context.Context, w *World, d Decider) (*Disagreement, error) {
	s := &shrinker{e: e, d: d}
	if !s.try(ctx, w.clone()) {
		return &Disagreement{Decider: d.Name(), World: w, Text: "-- not seen again when loaded anew\n" + formatCase(w, nil)}, ctx.Err()
	}
	s.one(ctx)
	for size := -1; size != s.best.World.size() && ctx.Err() == nil; {
		size = s.best.World.size()
		s.shrinkPolicies(ctx)
		s.shrinkSetup(ctx)
		s.shrinkColumns(ctx)
		s.shrinkClaims(ctx)
	}
	s.best.Text = formatCase(s.best.World, s.best.Want)
	return s.best, ctx.Err()
}

// size is what has to become smaller.
func (w *World) size() int {
	n := len(w.Rows) + len(w.Identities)
	for _, s := range w.sql() {
		n += len(s)
	}
	for _, id := range w.Identities {
		n += len(id.Claims.JSON)
	}
	return n
}

// try loads a world and keeps it when the decider is still wrong.
func (s *shrinker) try(ctx context.Context, w *World) bool {
	if s.tries++; s.tries > maxTries || s.e.Load(ctx, w) != nil {
		return false
	}
	want, err := Ask(ctx, w)
	if err != nil {
		return false
	}
	got, err := s.d.Decide(ctx, w)
	if err != nil {
		return false
	}
	if wrong, _, err := disagrees(ctx, s.d, w, want, got, map[string]int64{}); err != nil || !wrong {
		return false
	}
	s.best = &Disagreement{Decider: s.d.Name(), World: w, Want: want, Got: got}
	return true
}

// one keeps a single identity and, when that does it, a single row.
func (s *shrinker) one(ctx context.Context) {
	b := s.best
	for i := range b.Want {
		for r := range b.Want[i] {
			if b.Got[i][r] == NotMine || b.Got[i][r] == b.Want[i][r] {
				continue
			}
			w := b.World.clone()
			w.Identities = w.Identities[i : i+1]
			if !s.try(ctx, w) {
				continue
			}
			if len(w.Rows) == len(b.Want[i]) {
				w = w.clone()
				w.Rows = w.Rows[r : r+1]
				s.try(ctx, w)
			}
			return
		}
	}
}

func (s *shrinker) shrinkPolicies(ctx context.Context) {
	for i := len(s.best.World.Policies) - 1; i >= 0; i-- {
		w := s.best.World.clone()
		w.Policies = slices.Delete(w.Policies, i, i+1)
		s.try(ctx, w)
	}
	for i := 0; i < len(s.best.World.Policies); i++ {
		for again := true; again; {
			again = false
			p := s.best.World.Policies[i]
			if p.Using == nil {
				break
			}
			for _, smaller := range reductions(p.Using) {
				w := s.best.World.clone()
				w.Policies[i].Using = smaller
				if again = s.try(ctx, w); again {
					break
				}
			}
		}
		w := s.best.World.clone()
		w.Policies[i].Roles, w.Policies[i].Command = []string{"public"}, "select"
		s.try(ctx, w)
	}
}

// reductions returns smaller expressions: a part in place of the whole, or one
// part made smaller.
func reductions(e *Expr) (out []*Expr) {
	out = append(out, e.Kids...)
	if e.Text != "true" && e.Text != "false" {
		out = append(out, &Expr{Text: "true"}, &Expr{Text: "false"})
	}
	if e.Shape == "and" || e.Shape == "or" {
		for i := range e.Kids {
			if len(e.Kids) > 2 {
				text := strings.TrimSuffix(strings.Repeat("(%s) "+e.Shape+" ", len(e.Kids)-1), " "+e.Shape+" ")
				out = append(out, &Expr{Text: text, Kids: slices.Delete(slices.Clone(e.Kids), i, i+1), Shape: e.Shape})
			}
		}
	}
	for i, k := range e.Kids {
		for _, smaller := range reductions(k) {
			c := *e
			c.Kids = slices.Clone(e.Kids)
			c.Kids[i] = smaller
			out = append(out, &c)
		}
	}
	return out
}

func (s *shrinker) shrinkSetup(ctx context.Context) {
	for size := 16; size > 0; size /= 2 {
		for end := len(s.best.World.Setup); end > 0; end -= size {
			w := s.best.World.clone()
			w.Setup = slices.Delete(w.Setup, max(end-size, 0), end)
			s.try(ctx, w)
			end = min(end, len(s.best.World.Setup)+size)
		}
	}
	for i := len(s.best.World.Rows) - 1; i >= 0; i-- {
		w := s.best.World.clone()
		w.Rows = slices.Delete(w.Rows, i, i+1)
		s.try(ctx, w)
	}
}

func (s *shrinker) shrinkColumns(ctx context.Context) {
	for i := len(s.best.World.Columns) - 1; i > 0; i-- {
		w := s.best.World.clone()
		at := 0
		for _, c := range w.Columns[:i] {
			if !c.Unfilled {
				at++
			}
		}
		if !w.Columns[i].Unfilled {
			for r := range w.Rows {
				w.Rows[r] = slices.Delete(slices.Clone(w.Rows[r]), at, at+1)
			}
		}
		w.Columns = slices.Delete(w.Columns, i, i+1)
		s.try(ctx, w)
	}
	for r := range s.best.World.Rows {
		for c := 1; c < len(s.best.World.Rows[r]); c++ {
			if s.best.World.Rows[r][c] == "null" {
				continue
			}
			w := s.best.World.clone()
			w.Rows[r] = slices.Clone(w.Rows[r])
			w.Rows[r][c] = "null"
			s.try(ctx, w)
		}
	}
}

// shrinkClaims leaves out members of the claims. Claims that are no plain object,
// for example for a name that is there twice, stay as they are when that matters.
func (s *shrinker) shrinkClaims(ctx context.Context) {
	for i := range s.best.World.Identities {
		var m map[string]json.RawMessage
		if json.Unmarshal(s.best.World.Identities[i].Claims.JSON, &m) != nil {
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if k == "role" {
				continue
			}
			v := m[k]
			delete(m, k)
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if enc.Encode(m) != nil {
				continue
			}
			w := s.best.World.clone()
			w.Identities[i] = NewIdentity(w.Identities[i].Name, strings.TrimSpace(b.String()))
			if !s.try(ctx, w) {
				m[k] = v
			}
		}
	}
}
