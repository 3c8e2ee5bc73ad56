package rest

import (
	"fmt"
	"net/http"
	"strings"
)

// node is a resource that is read: the request's own, or one embedded in it.
type node struct {
	// What the request says. Name, hint, join and spread are of embedded ones.
	name   string // the target as spelled
	alias  string
	hint   string
	inner  bool
	spread bool
	items  []selectItem
	filter []filter
	trees  []tree
	order  []orderTerm
	limit  *int64
	offset int64
	embeds []*node // in the order of items

	resolved
}

// key is the name under which an embedded resource is answered and addressed.
func (n *node) key() string {
	if n.alias != "" {
		return n.alias
	}
	return n.name
}

// child returns the embedded resource of that name: by alias or, where nothing
// has the alias, by target.
func (n *node) child(name string) *node {
	for _, e := range n.embeds {
		if e.key() == name {
			return e
		}
	}
	for _, e := range n.embeds {
		if e.name == name {
			return e
		}
	}
	return nil
}

// selectItem is one output column, or the place of an embedded resource.
type selectItem struct {
	star  bool
	alias string
	field field
	cast  string
	// aggregate is sum, avg, min, max or count; without a field, rows are
	// counted. aggCast is the cast of its result.
	aggregate string
	aggCast   string
	embed     *node
	// lateral is the join that the field is a column of, when it is not one of
	// the node's own: an item lifted out of a spread resource.
	lateral string
}

// output is the key of an item in the answer.
func (it *selectItem) output() string {
	switch {
	case it.embed != nil:
		return it.embed.key()
	case it.alias != "":
		return it.alias
	case it.aggregate != "":
		return it.aggregate
	}
	for i := len(it.field.path) - 1; i >= 0; i-- {
		if s := it.field.path[i]; !s.isIndex {
			return s.key
		}
	}
	return it.field.name
}

// orderTerm is one term of order, by a column of an embedded resource when
// related is set.
type orderTerm struct {
	related string
	embed   *node // the resource, set by the plan
	field   field
	desc    bool
	nulls   string // first, last or empty
}

// parseSelect reads select into n.
func parseSelect(n *node, text string) error {
	p := &parser{what: "select parameter", text: text}
	if p.blanks(); p.done() {
		return nil
	}
	count := 0
	if err := p.items(n, 0, &count); err != nil {
		return err
	}
	if !p.done() {
		return p.fail(`"," or end of input`)
	}
	return nil
}

// items reads a list of items up to what cannot follow one.
func (p *parser) items(n *node, depth int, count *int) *Error {
	for {
		if *count++; *count > maxItems {
			return p.fail("fewer items")
		}
		if err := p.item(n, depth, count); err != nil {
			return err
		}
		p.blanks()
		if !p.take(",") {
			return nil
		}
	}
}

func (p *parser) item(n *node, depth int, count *int) *Error {
	p.blanks()
	if p.take("*") {
		n.items = append(n.items, selectItem{star: true})
		return nil
	}
	var item selectItem
	spread := p.take("...")
	f, err := p.field()
	if err != nil {
		return err
	}
	if len(f.path) == 0 && p.has(":") && !p.has("::") {
		p.pos++
		item.alias = f.name
		if f, err = p.field(); err != nil {
			return err
		}
	}
	item.field = f
	if len(f.path) == 0 && f.name == "count" && p.take("()") {
		item.field, item.aggregate = field{}, "count"
		item.aggCast, err = p.castName()
		n.items = append(n.items, item)
		return err
	}
	if _, known := aggregateFunction[f.name]; known && len(f.path) == 0 && !spread && p.take("()") {
		// Without a column: PostgreSQL will say that there is none of that name.
		n.items = append(n.items, item)
		return nil
	}
	if spread || len(f.path) == 0 && (p.has("(") || p.has("!")) {
		return p.embed(n, item, spread, depth, count)
	}
	if item.cast, err = p.castName(); err != nil {
		return err
	}
	if p.has(".") {
		if err := p.aggregate(&item); err != nil {
			return err
		}
	}
	n.items = append(n.items, item)
	return nil
}

// embed reads what follows the name of an embedded resource.
func (p *parser) embed(n *node, item selectItem, spread bool, depth int, count *int) *Error {
	e := &node{name: item.field.name, alias: item.alias, spread: spread}
	joined := false
	for p.take("!") {
		m, err := p.name()
		switch {
		case err != nil:
			return err
		case (m == "inner" || m == "left") && !joined:
			joined, e.inner = true, m == "inner"
		case e.hint == "":
			e.hint = m
		default:
			return p.fail(`"("`)
		}
	}
	if depth >= maxEmbedDepth {
		return p.fail("fewer levels")
	}
	if !p.take("(") {
		return p.fail(`"("`)
	}
	if p.blanks(); !p.has(")") {
		if err := p.items(e, depth+1, count); err != nil {
			return err
		}
	}
	if !p.take(")") {
		return p.fail(`"," or ")"`)
	}
	if *count > maxItems || len(n.embeds) >= maxEmbeds {
		return p.fail("fewer items")
	}
	n.embeds = append(n.embeds, e)
	n.items = append(n.items, selectItem{embed: e})
	return nil
}

// castName reads an optional cast.
func (p *parser) castName() (string, *Error) {
	if !p.take("::") {
		return "", nil
	}
	start := p.pos
	for !p.done() && isCastByte(p.text[p.pos]) {
		p.pos++
	}
	name := strings.TrimSpace(p.text[start:p.pos])
	if name == "" {
		return "", p.fail("a type name")
	}
	return name, nil
}

func isCastByte(c byte) bool {
	return c == '_' || c == ' ' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// aggregate reads .sum() and what follows it.
func (p *parser) aggregate(item *selectItem) (err *Error) {
	for _, name := range []string{"sum", "avg", "min", "max", "count"} {
		if p.take("." + name + "()") {
			item.aggregate = name
			item.aggCast, err = p.castName()
			return err
		}
	}
	p.pos++
	return p.fail(`aggregate function (sum(), avg(), ...)`)
}

// parseOrder reads order.
func parseOrder(text string) ([]orderTerm, error) {
	p := &parser{what: "order", text: text}
	var out []orderTerm
	for {
		term, err := p.orderTerm()
		if err != nil {
			return nil, err
		}
		out = append(out, term)
		if p.done() {
			return out, nil
		}
		if len(out) >= maxItems || !p.take(",") {
			return nil, p.fail(`"," or end of input`)
		}
	}
}

func (p *parser) orderTerm() (orderTerm, *Error) {
	f, err := p.field()
	if err != nil {
		return orderTerm{}, err
	}
	term := orderTerm{field: f}
	if len(f.path) == 0 && p.take("(") {
		term.related = f.name
		if term.field, err = p.field(); err != nil {
			return term, err
		}
		if !p.take(")") {
			return term, p.fail(`")"`)
		}
	}
	switch {
	case p.take(".asc"):
	case p.take(".desc"):
		term.desc = true
	}
	switch {
	case p.take(".nullsfirst"):
		term.nulls = "first"
	case p.take(".nullslast"):
		term.nulls = "last"
	}
	p.blanks()
	return term, nil
}

// notEmbedded answers a path to something that select does not embed.
func notEmbedded(name string) *Error {
	return fail(http.StatusBadRequest, "PGRST108", fmt.Sprintf("'%s' is not an embedded resource in this request", name)).
		hint("Verify that '" + name + "' is included in the 'select' query parameter.")
}

// legacyWarning goes with an answer to a request of byTarget.
const legacyWarning = `299 Sluice "Embedded resource was referenced by relation name even though it has an alias. Use the alias in filters, orders and limits."`

// checkTargets refuses keys that address an embedded resource by its target when
// it has an alias, unless they are allowed.
func (r *request) checkTargets(allowed bool) error {
	if allowed || len(r.byTarget) == 0 {
		return nil
	}
	n := r.byTarget[0]
	return notEmbedded(n.name).details("Target names are not allowed in filters if they have an alias").
		hint(fmt.Sprintf("Change '%s' to '%s' in filters, orders or limits.", n.name, n.alias))
}
