package rest

import (
	"slices"
	"strings"
)

// filter is one condition.
type filter struct {
	field  field
	negate bool
	op     string
	quant  string // any, all or empty
	config string // of full text search
	value  string
	list   []string // of in
	// embed is set by the plan when the field is an embedded resource: the
	// condition is whether it is there.
	embed *node
}

// tree is a condition or a logic node over others.
type tree struct {
	leaf   *filter
	or     bool
	negate bool
	kids   []tree
}

// simpleOps take a value; quantOps also (any) and (all).
var (
	quantOps  = []string{"eq", "gte", "gt", "lte", "lt", "like", "ilike", "match", "imatch"}
	simpleOps = []string{"neq", "isdistinct", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj"}
	textOps   = []string{"fts", "plfts", "phfts", "wfts"}
)

// operator reads [not.]op[(…)]. and leaves the value.
func (p *parser) operator(f *filter) *Error {
	f.negate = p.take("not.")
	start := p.pos
	for !p.done() && p.text[p.pos] >= 'a' && p.text[p.pos] <= 'z' {
		p.pos++
	}
	f.op = p.text[start:p.pos]
	bad := func() *Error {
		p.pos = start
		return p.fail(`"not" or operator (eq, gt, ...)`)
	}
	inside := func() (string, bool) {
		if !p.take("(") {
			return "", true
		}
		end := strings.IndexByte(p.text[p.pos:], ')')
		if end < 0 {
			return "", false
		}
		s := p.text[p.pos : p.pos+end]
		p.pos += end + 1
		return s, true
	}
	var ok bool
	switch {
	case slices.Contains(quantOps, f.op):
		if f.quant, ok = inside(); !ok || f.quant != "" && f.quant != "any" && f.quant != "all" {
			return bad()
		}
	case slices.Contains(textOps, f.op):
		if f.config, ok = inside(); !ok {
			return bad()
		}
	case slices.Contains(simpleOps, f.op), f.op == "in", f.op == "is":
	default:
		return bad()
	}
	if !p.take(".") {
		return bad()
	}
	return nil
}

var isValues = map[string]string{"null": "null", "not_null": "not null", "true": "true", "false": "false", "unknown": "unknown"}

// finish checks what belongs to the operator.
func (p *parser) finish(f *filter) *Error {
	switch f.op {
	case "is":
		if isValues[strings.ToLower(f.value)] == "" {
			return p.fail("null, not_null, true, false or unknown")
		}
		f.value = strings.ToLower(f.value)
	case "like", "ilike":
		f.value = strings.ReplaceAll(f.value, "*", "%")
	}
	return nil
}

// list reads (a,"b",c).
func (p *parser) list() ([]string, *Error) {
	if !p.take("(") {
		return nil, p.fail(`"("`)
	}
	out := []string{}
	if end := strings.IndexByte(p.text[p.pos:], ')'); end >= 0 && strings.TrimSpace(p.text[p.pos:p.pos+end]) == "" {
		p.pos += end + 1
		return out, nil
	}
	for {
		p.blanks()
		var b strings.Builder
		if p.take(`"`) {
			v, err := p.quoted()
			if err != nil {
				return nil, err
			}
			b.WriteString(v)
			p.blanks()
		} else {
			for !p.done() && p.text[p.pos] != ',' && p.text[p.pos] != ')' {
				b.WriteByte(p.text[p.pos])
				p.pos++
			}
		}
		out = append(out, b.String())
		switch {
		case p.take(")"):
			return out, nil
		case !p.take(","):
			return nil, p.fail(`"," or ")"`)
		}
	}
}

// parseFilter reads the value of a plain filter.
func parseFilter(f field, text string) (filter, error) {
	p := &parser{what: "filter", text: text}
	out := filter{field: f}
	if err := p.operator(&out); err != nil {
		return out, err
	}
	if out.op == "in" {
		var err *Error
		if out.list, err = p.list(); err != nil {
			return out, err
		}
		if !p.done() {
			return out, p.fail("end of input")
		}
		return out, nil
	}
	out.value = p.text[p.pos:]
	if err := p.finish(&out); err != nil {
		return out, err
	}
	return out, nil
}

const expectLogic = `field name (* or [a..z0..9_$]), negation operator (not) or logic operator (and, or)`

// parseLogic reads the tree of and=(…), or=(…), not.and=(…), not.or=(…).
func parseLogic(op, text string) (tree, error) {
	p := &parser{what: "logic tree", text: text, shift: len(op)}
	t, err := p.group(strings.HasSuffix(op, "or"), strings.HasPrefix(op, "not."), 0)
	if err != nil {
		return t, err
	}
	p.blanks()
	if !p.done() && strings.Trim(p.text[p.pos:], ") ") != "" {
		return t, p.fail("end of input")
	}
	return t, nil
}

func (p *parser) group(or, negate bool, depth int) (tree, *Error) {
	t := tree{or: or, negate: negate}
	p.blanks()
	if depth > maxDepth {
		return t, p.fail("fewer levels")
	}
	if !p.take("(") {
		return t, p.fail(`"("`)
	}
	for {
		kid, err := p.condition(depth)
		if err != nil {
			return t, err
		}
		t.kids = append(t.kids, kid)
		p.blanks()
		switch {
		case p.take(")"):
			return t, nil
		case len(t.kids) >= maxFilters || !p.take(","):
			return t, p.fail(`"," or ")"`)
		}
	}
}

func (p *parser) condition(depth int) (tree, *Error) {
	p.blanks()
	for _, l := range []struct {
		prefix     string
		or, negate bool
	}{{"and", false, false}, {"or", true, false}, {"not.and", false, true}, {"not.or", true, true}} {
		start := p.pos
		if p.take(l.prefix) {
			if p.blanks(); p.has("(") {
				return p.group(l.or, l.negate, depth+1)
			}
			p.pos = start
		}
	}
	if p.done() || p.has(")") || p.has(",") {
		return tree{}, p.fail(expectLogic)
	}
	f, err := p.field()
	if err != nil {
		return tree{}, err
	}
	if !p.take(".") {
		return tree{}, p.fail(`"."`)
	}
	leaf := filter{field: f}
	if err := p.operator(&leaf); err != nil {
		return tree{}, err
	}
	if leaf.op == "in" {
		if leaf.list, err = p.list(); err != nil {
			return tree{}, err
		}
		return tree{leaf: &leaf}, nil
	}
	if leaf.value, err = p.treeValue(); err != nil {
		return tree{}, err
	}
	if err := p.finish(&leaf); err != nil {
		return tree{}, err
	}
	return tree{leaf: &leaf}, nil
}

// treeValue reads a value inside a tree: quoted, a literal in braces or between
// the bounds of a range, or a run up to a comma or parenthesis.
func (p *parser) treeValue() (string, *Error) {
	if p.take(`"`) {
		return p.quoted()
	}
	if n := rangeLiteral(p.text[p.pos:]); n > 0 {
		p.pos += n
		return p.text[p.pos-n : p.pos], nil
	}
	start, braces := p.pos, 0
	for ; !p.done(); p.pos++ {
		switch c := p.text[p.pos]; {
		case braces == 0 && (c == ',' || c == ')'):
			return p.text[start:p.pos], nil
		case c == '{':
			braces++
		case c == '}':
			braces = max(0, braces-1)
		}
	}
	return p.text[start:], nil
}

// rangeLiteral returns the length of the [a,b) that s starts with, or 0.
func rangeLiteral(s string) int {
	if s == "" || s[0] != '[' && s[0] != '(' {
		return 0
	}
	end := strings.IndexAny(s, "])") + 1
	if end == 0 || end == len(s) || s[end] != ',' && s[end] != ')' || strings.Count(s[:end], ",") != 1 {
		return 0
	}
	return end
}
