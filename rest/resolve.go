package rest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice/schema"
)

// resolved is what the plan finds out about a node.
type resolved struct {
	source source
	parent *node
	// rel leads from the parent; nil at the top.
	rel *schema.Relationship
	// lateral is the alias of the join.
	lateral string
	// asked: a condition of the parent is whether there is a row.
	asked bool
}

func (n *node) toOne() bool { return n.rel.ToOne() }

// decides reports whether the parent's rows depend on the embedded resource.
func (n *node) decides() bool { return n.inner || n.asked }

// hidden reports whether the resource has no place in the answer: its
// parentheses are empty, or hold nothing but such.
func (n *node) hidden() bool {
	return !slices.ContainsFunc(n.items, func(it selectItem) bool { return it.embed == nil || !it.embed.hidden() })
}

// orders reports whether the parent is ordered by columns of the row beside the
// items: the lateral join is then of the row as one value and of those columns
// (orderedRow). What is grouped has no columns but its items.
func (n *node) orders() bool {
	p := n.parent
	return n.toOne() && !n.grouped() && !p.grouped() && slices.ContainsFunc(p.order, func(t orderTerm) bool { return t.embed == n })
}

// grouped reports whether the items have an aggregate among them.
func (n *node) grouped() bool {
	return slices.ContainsFunc(n.items, func(it selectItem) bool { return it.aggregate != "" })
}

// outputs are the names of the columns that a node's rows have.
func (n *node) outputs() []string {
	var out []string
	for i := range n.items {
		it := &n.items[i]
		switch {
		case it.star:
			for j := range n.source.relation.Columns {
				out = append(out, n.source.relation.Columns[j].Name)
			}
		case it.embed == nil:
			out = append(out, it.output())
		case it.embed.hidden():
		case it.embed.spread:
			out = append(out, it.embed.outputs()...)
		default:
			out = append(out, it.embed.key())
		}
	}
	return out
}

// width is the number of columns of an item.
func (n *node) width(it *selectItem) int {
	switch {
	case it.star:
		return len(n.source.relation.Columns)
	case it.embed == nil:
		return 1
	case it.embed.hidden():
		return 0
	case it.embed.spread:
		return len(it.embed.outputs())
	}
	return 1
}

// resolver resolves the nodes of one request against one snapshot.
type resolver struct {
	snap       *schema.Snapshot
	schema     string
	maxRows    int64 // 0 is no bound
	aggregates bool
	top        string // alias at the top
}

// resolve finds the relationships below n, whose source is set, and checks what
// refers to embedded resources. conditions: n's own filters may ask for them.
func (v *resolver) resolve(n *node, depth int, conditions bool) error {
	if err := v.items(n); err != nil {
		return err
	}
	for _, e := range n.embeds {
		if err := v.embed(n, e, depth); err != nil {
			return err
		}
		if e.spread && e.toOne() && e.grouped() {
			if err := hoist(n, e); err != nil {
				return err
			}
		}
	}
	if n.grouped() && n.source.relation == nil && slices.ContainsFunc(n.items, func(it selectItem) bool { return it.star }) {
		return fail(http.StatusBadRequest, "PGRST127", "Feature not implemented").details("Aggregates beside * need a relation.")
	}
	if conditions {
		for i := range n.filter {
			if err := ask(n, &n.filter[i]); err != nil {
				return err
			}
		}
		for i := range n.trees {
			if err := askTree(n, &n.trees[i]); err != nil {
				return err
			}
		}
	}
	for i := range n.order {
		t := &n.order[i]
		if t.related == "" {
			continue
		}
		e := n.child(t.related)
		if e == nil {
			return notEmbedded(t.related)
		}
		if !e.toOne() {
			return fail(http.StatusBadRequest, "PGRST118", fmt.Sprintf("A related order on '%s' is not possible", t.related)).
				details(fmt.Sprintf("'%s' and '%s' do not form a many-to-one or one-to-one relationship", n.sourceName(), t.related))
		}
		t.embed = e
	}
	return nil
}

// sourceName is what messages call a node's relation.
func (n *node) sourceName() string {
	if n.source.relation != nil {
		return n.source.relation.Name
	}
	return n.source.alias
}

// items checks aggregates. An item count that is no column counts rows, as it
// did before there were aggregates, and is always allowed.
func (v *resolver) items(n *node) error {
	for i := range n.items {
		it := &n.items[i]
		if it.embed == nil && it.field.name == "count" && len(it.field.path) == 0 && it.cast == "" && it.aggregate == "" &&
			n.source.relation != nil && n.source.relation.Column("count") == nil {
			it.field, it.aggregate = field{}, "count"
			continue
		}
		switch {
		case it.aggregate == "":
		case !v.aggregates:
			return fail(http.StatusBadRequest, "PGRST123", "Use of aggregate functions is not allowed")
		case n.spread && !n.toOne():
			return fail(http.StatusBadRequest, "PGRST127", "Feature not implemented").
				details("Aggregates are not implemented for one-to-many or many-to-many spreads.")
		}
	}
	return nil
}

// of is what an item's field is a column of.
func (n *node) of(it *selectItem) source {
	if it.lateral != "" {
		return source{alias: it.lateral}
	}
	return n.source
}

// hoist lifts the aggregates of a spread resource to its parent, over whose rows
// they run, and what they are grouped by. The resource itself then returns their
// arguments, named by position.
func hoist(n, e *node) error {
	var below, lifted []selectItem
	add := func(it selectItem, out string) {
		up := selectItem{aggregate: it.aggregate, aggCast: it.aggCast, alias: out}
		if it.aggregate != "count" || it.field.name != "" {
			name := strconv.Itoa(len(below) + 1)
			up.field, up.lateral = field{name: name}, e.lateral
			it.aggregate, it.aggCast, it.alias = "", "", name
			below = append(below, it)
		}
		lifted = append(lifted, up)
	}
	for _, it := range e.items {
		switch {
		case it.star:
			for i := range e.source.relation.Columns {
				name := e.source.relation.Columns[i].Name
				add(selectItem{field: field{name: name}}, name)
			}
		case it.embed == nil:
			add(it, it.output())
		case it.embed.hidden():
			below = append(below, it)
		default:
			return fail(http.StatusBadRequest, "PGRST127", "Feature not implemented").
				details("Embedded resources are not implemented beside aggregates in a spread.")
		}
	}
	e.items, e.order = below, nil // an order of one row says nothing, and joins would be others for it
	at := slices.IndexFunc(n.items, func(it selectItem) bool { return it.embed == e })
	n.items = slices.Replace(n.items, at, at+1, lifted...)
	return nil
}

func (v *resolver) embed(n, e *node, depth int) error {
	rel, err := v.relationship(n, e)
	if err != nil {
		return err
	}
	level := strconv.Itoa(depth)
	e.rel, e.parent = rel, n
	e.source = source{alias: alias(rel.Target.Name, level), relation: rel.Target}
	if e.source.alias == v.top { // a table may be called like that
		e.source.alias = alias(rel.Target.Name, level, "")
	}
	e.lateral = alias(n.sourceName(), e.key(), level)
	if !e.toOne() {
		e.limit = capped(e.limit, v.maxRows)
	}
	return v.resolve(e, depth+1, true)
}

// capped is the smaller of a limit and a bound.
func capped(limit *int64, bound int64) *int64 {
	if bound <= 0 || limit != nil && *limit <= bound {
		return limit
	}
	return &bound
}

// ask makes a filter on the name of an embedded resource the question whether it
// is there.
func ask(n *node, f *filter) error {
	if len(f.field.path) > 0 {
		return nil
	}
	e := n.child(f.field.name)
	if e == nil {
		return nil
	}
	if f.op != "is" || f.value != "null" && f.value != "not_null" {
		return fail(http.StatusBadRequest, "PGRST120", fmt.Sprintf("Bad operator on the '%s' embedded resource", f.field.name)).
			hint("Only is null or not is null filters are allowed on embedded resources")
	}
	if f.value == "not_null" {
		f.negate = !f.negate
	}
	e.asked, f.embed = true, e
	return nil
}

func askTree(n *node, t *tree) error {
	if t.leaf != nil {
		return ask(n, t.leaf)
	}
	for i := range t.kids {
		if err := askTree(n, &t.kids[i]); err != nil {
			return err
		}
	}
	return nil
}

// relationship finds the one relationship that e names.
func (v *resolver) relationship(n, e *node) (*schema.Relationship, error) {
	var found []*schema.Relationship
	if n.source.relation != nil {
		for _, r := range v.snap.Relationships(n.source.relation) {
			switch {
			case !leads(r, e.name, e.hint):
			case r.Function != nil: // it overrides what keys say
				return r, nil
			default:
				found = append(found, r)
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, v.noRelationship(n, e)
	case 1:
		return found[0], nil
	}
	return nil, ambiguous(n, e, found)
}

// leads reports whether r is what target and hint name (spec rest 2.6.2): the
// related relation, a foreign key or its column; the hint a foreign key, its
// column or a junction. Keys and columns do not lead to views.
func leads(r *schema.Relationship, target, hint string) bool {
	if r.Function != nil {
		return hint == "" && r.Function.Name == target
	}
	self := r.Source == r.Target
	byName := r.Target.Name == target
	byKey := r.Junction == nil && !r.Target.IsView() &&
		(r.Constraint == target && (r.Forward || !self) || r.Forward && only(r.Columns) == target)
	switch {
	case hint == "" && self:
		return byName && !r.Forward || byKey
	case hint == "":
		return byName || byKey
	case r.Junction != nil:
		return byName && (r.Junction.Relation.Name == hint || self && (r.Junction.TargetConstraint == hint || only(r.Junction.TargetColumns) == hint))
	case self:
		return byName && r.Forward && only(r.Columns) == hint
	}
	return (byName || byKey) && (r.Constraint == hint || r.Forward && only(r.Columns) == hint || !r.Forward && only(r.TargetColumns) == hint)
}

// only returns the column of a key that has just one.
func only(columns []string) string {
	if len(columns) == 1 {
		return columns[0]
	}
	return ""
}

func (v *resolver) noRelationship(n, e *node) error {
	from := n.sourceName()
	using := ""
	if e.hint != "" {
		using = fmt.Sprintf(" using the hint '%s'", e.hint)
	}
	err := fail(http.StatusBadRequest, "PGRST200", fmt.Sprintf("Could not find a relationship between '%s' and '%s' in the schema cache", from, e.name)).
		details(fmt.Sprintf("Searched for a foreign key relationship between '%s' and '%s'%s in the schema '%s', but no matches were found.", from, e.name, using, v.schema))
	best, score := "", 0.33
	if n.source.relation != nil {
		for _, r := range v.snap.Relationships(n.source.relation) {
			if s := schema.Similarity(r.Target.Name, e.name); r.Function == nil && s > score {
				best, score = r.Target.Name, s
			}
		}
	}
	if best != "" && best != e.name { // it may be the hint that is wrong
		err.Hint = fmt.Sprintf("Perhaps you meant '%s' instead of '%s'.", best, e.name)
	}
	return err
}

// candidate describes one of several relationships.
type candidate struct {
	Cardinality  schema.Cardinality `json:"cardinality"`
	Embedding    string             `json:"embedding"`
	Relationship string             `json:"relationship"`
}

func ambiguous(n, e *node, found []*schema.Relationship) error {
	var list []candidate
	var hints []string
	for _, r := range found {
		c := candidate{Cardinality: r.Cardinality, Embedding: r.Source.Name + " with " + r.Target.Name}
		hint := r.Constraint
		if j := r.Junction; j != nil {
			hint = j.Relation.Name
			c.Relationship = fmt.Sprintf("%s using %s(%s) and %s(%s)", hint, j.SourceConstraint, strings.Join(j.SourceColumns, ", "),
				j.TargetConstraint, strings.Join(j.TargetColumns, ", "))
		} else {
			c.Relationship = fmt.Sprintf("%s using %s(%s) and %s(%s)", r.Constraint, r.Source.Name, strings.Join(r.Columns, ", "),
				r.Target.Name, strings.Join(r.TargetColumns, ", "))
		}
		list = append(list, c)
		hints = append(hints, "'"+r.Target.Name+"!"+hint+"'")
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return strings.Compare(a.Relationship, b.Relationship) })
	slices.Sort(hints)
	return fail(http.StatusMultipleChoices, "PGRST201",
		fmt.Sprintf("Could not embed because more than one relationship was found for '%s' and '%s'", n.sourceName(), e.name)).
		details(list).
		hint(fmt.Sprintf("Try changing '%s' to one of the following: %s. Find the desired relationship in the 'details' key.", e.name, strings.Join(hints, ", ")))
}
