package policytest

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// A case is a file of SQL that psql can run, with what it is about in comments:
//
//	-- tier: 3                      the cheapest tier that claims it
//	-- table: public.messages       the protected table
//	-- key: id                      its integer primary key
//	-- leaf: public.messages_1      of a partitioned table: the partition that changes are about
//	-- gap: schema usage            a known difference (see the constants), if any
//	create table …;
//	-- as alice: {"role":"authenticated","sub":"…"}
//	-- sees: 1 3                    keys of the rows that alice sees
//
// The roles are those of sql/roles.sql and of every Supabase database.
type Case struct {
	Tier  string
	World *World
	Sees  []string // by identity
}

// ParseCase reads a case.
func ParseCase(text string) (*Case, error) {
	c := &Case{World: &World{}}
	var sql []string
	for line := range strings.Lines(text) {
		comment, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "-- ")
		name, value, colon := strings.Cut(comment, ":")
		value = strings.TrimSpace(value)
		switch {
		case !ok || !colon:
			sql = append(sql, line)
		case name == "tier":
			c.Tier = value
		case name == "table":
			c.World.Table = value
		case name == "key":
			c.World.Key = value
		case name == "leaf":
			c.World.Leaf = value
		case name == "gap":
			c.World.Gap = value
		case name == "sees":
			c.Sees = append(c.Sees, value)
		case strings.HasPrefix(name, "as "):
			c.World.Identities = append(c.World.Identities, NewIdentity(strings.TrimPrefix(name, "as "), value))
		default:
			sql = append(sql, line)
		}
	}
	c.World.Setup = []string{strings.Join(sql, "")}
	if c.Tier == "" || c.World.Table == "" || c.World.Key == "" || len(c.Sees) == 0 || len(c.Sees) != len(c.World.Identities) {
		return nil, errors.New("a case has tier, table, key, and as many lines \"as\" as \"sees\"")
	}
	return c, nil
}

// Replay loads a case and compares what the oracle and every decider say with
// what stands in the file. It returns a line for each difference.
func (e *Env) Replay(ctx context.Context, c *Case, deciders []Decider) (wrong []string, err error) {
	w := c.World
	if err := e.Load(ctx, w); err != nil {
		return nil, err
	}
	want, err := Ask(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("oracle: %w", err)
	}
	for i := range want {
		if got := sees(w, want[i]); got != c.Sees[i] {
			wrong = append(wrong, fmt.Sprintf("PostgreSQL shows %s rows %q, the file says %q", w.Identities[i].Name, got, c.Sees[i]))
		}
	}
	for _, d := range deciders {
		got, err := d.Decide(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("tier %s: %w", d.Name(), err)
		}
		gaps := map[string]int64{}
		if differences(d, w, want, got, gaps) > 0 {
			for i := range want {
				wrong = append(wrong, fmt.Sprintf("tier %s shows %s rows %q, PostgreSQL %q", d.Name(), w.Identities[i].Name, sees(w, got[i]), sees(w, want[i])))
			}
		}
		if g, ok := d.(gapped); ok && w.Gap != "" && g.Gap(w.Gap) && len(gaps) == 0 {
			wrong = append(wrong, fmt.Sprintf("tier %s no longer has the gap %q: take the line out", d.Name(), w.Gap))
		}
	}
	return wrong, nil
}

// sees lists the keys that are shown; a decider's rows that it does not claim are
// marked.
func sees(w *World, answers []Answer) string {
	var out []string
	for r, a := range answers {
		switch a {
		case Yes:
			out = append(out, w.Keys[r])
		case NotMine:
			out = append(out, w.Keys[r]+"?")
		}
	}
	return strings.Join(out, " ")
}

// formatCase writes a case.
func formatCase(w *World, want [][]Answer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "-- tier: 3\n-- table: %s\n-- key: %s\n", w.Table, w.Key)
	if w.Leaf != "" {
		fmt.Fprintf(&b, "-- leaf: %s\n", w.Leaf)
	}
	b.WriteString(strings.Join(w.sql(), ";\n") + ";\n")
	for i, id := range w.Identities {
		fmt.Fprintf(&b, "-- as %s: %s\n", id.Name, id.Claims.JSON)
		if i < len(want) {
			fmt.Fprintf(&b, "-- sees: %s\n", sees(w, want[i]))
		}
	}
	return b.String()
}
