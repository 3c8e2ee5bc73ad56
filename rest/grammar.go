package rest

import (
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a query string.
const (
	maxFilters = 1000
	maxDepth   = 64
	maxItems   = 1000
)

// field is a column or a path into its JSON.
type field struct {
	name string
	path []step
}

// step is one arrow of a JSON path.
type step struct {
	key     string
	index   int64
	isIndex bool
	text    bool // ->>
}

// filter is one condition.
type filter struct {
	field  field
	negate bool
	op     string
	quant  string // any, all or empty
	config string // of full text search
	value  string
	list   []string // of in
}

// tree is a condition or a logic node over others.
type tree struct {
	leaf   *filter
	or     bool
	negate bool
	kids   []tree
}

// selectItem is one output column.
type selectItem struct {
	star  bool
	alias string
	field field
	cast  string
}

// orderTerm is one term of order.
type orderTerm struct {
	field field
	desc  bool
	nulls string // first, last or empty
}

// parser reads one value of the query string.
type parser struct {
	what, text string
	pos        int
}

// fail is a parse error with PostgREST's message; the column counts from 1.
func (p *parser) fail(expecting string) *Error {
	found := "end of input"
	if p.pos < len(p.text) {
		r, _ := utf8.DecodeRuneInString(p.text[p.pos:])
		found = fmt.Sprintf("%q", string(r))
	}
	column := utf8.RuneCountInString(p.text[:min(p.pos, len(p.text))]) + 1
	return fail(http.StatusBadRequest, "PGRST100", fmt.Sprintf(`"failed to parse %s (%s)" (line 1, column %d)`, p.what, p.text, column)).
		details(fmt.Sprintf("unexpected %s expecting %s", found, expecting))
}

func (p *parser) blanks() {
	for p.pos < len(p.text) && (p.text[p.pos] == ' ' || p.text[p.pos] == '\t' || p.text[p.pos] == '\n') {
		p.pos++
	}
}

func (p *parser) done() bool { return p.pos >= len(p.text) }

func (p *parser) has(s string) bool { return strings.HasPrefix(p.text[p.pos:], s) }

func (p *parser) take(s string) bool {
	if p.has(s) {
		p.pos += len(s)
		return true
	}
	return false
}

const expectName = `field name (* or [a..z0..9_$])`

// name reads a bare or quoted name.
func (p *parser) name() (string, *Error) {
	p.blanks()
	if p.take(`"`) {
		var b strings.Builder
		for !p.done() {
			switch c := p.text[p.pos]; {
			case c == '\\' && p.pos+1 < len(p.text):
				p.pos++
				b.WriteByte(p.text[p.pos])
			case c == '"':
				p.pos++
				p.blanks()
				return b.String(), nil
			default:
				b.WriteByte(c)
			}
			p.pos++
		}
		return "", p.fail(`"\""`)
	}
	start := p.pos
	for !p.done() {
		r, n := utf8.DecodeRuneInString(p.text[p.pos:])
		if !(unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || r == '_' || r == '$' || r == ' ' || r == '-' && !p.has("->")) {
			break
		}
		p.pos += n
	}
	s := strings.TrimSpace(p.text[start:p.pos])
	if s == "" {
		return "", p.fail(expectName)
	}
	return s, nil
}

// field reads a name and its JSON path.
func (p *parser) field() (field, *Error) {
	name, err := p.name()
	if err != nil {
		return field{}, err
	}
	f := field{name: name}
	for p.has("->") {
		if len(f.path) >= maxDepth {
			return f, p.fail("a shorter path")
		}
		p.pos += 2
		s := step{text: p.take(">")}
		start := p.pos
		for !p.done() && !strings.ContainsRune(".,>():", rune(p.text[p.pos])) && !p.has("->") {
			p.pos++
		}
		s.key = strings.TrimSpace(p.text[start:p.pos])
		if s.key == "" {
			return f, p.fail(`"-", digit or any non reserved character different from: .,>()`)
		}
		if n, ok := integer(s.key); ok {
			s.index, s.isIndex = n, true
		}
		f.path = append(f.path, s)
	}
	return f, nil
}

// integer reads -?[0-9]+ of at most 18 digits.
func integer(s string) (int64, bool) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || len(digits) > 18 {
		return 0, false
	}
	n := int64(0)
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if digits != s {
		n = -n
	}
	return n, true
}

// parseSelect reads select. Embedding and aggregates are recognised and refused:
// this version does not serve them, and must not answer something else.
func parseSelect(text string) ([]selectItem, error) {
	p := &parser{what: "select parameter", text: text}
	var out []selectItem
	for p.blanks(); !p.done(); {
		if len(out) >= maxItems {
			return nil, p.fail("fewer items")
		}
		if p.has("...") {
			return nil, notServed("Spreading an embedded resource")
		}
		item, err := p.selectItem()
		if err != nil {
			return nil, err
		}
		out = append(out, item)
		p.blanks()
		if p.done() {
			break
		}
		if !p.take(",") {
			return nil, p.fail(`"," or end of input`)
		}
		if p.blanks(); p.done() {
			return nil, p.fail(expectName)
		}
	}
	return out, nil
}

func (p *parser) selectItem() (selectItem, error) {
	p.blanks()
	if p.take("*") {
		return selectItem{star: true}, nil
	}
	var item selectItem
	f, err := p.field()
	if err != nil {
		return item, err
	}
	if len(f.path) == 0 && p.has(":") && !p.has("::") {
		p.pos++
		item.alias = f.name
		if f, err = p.field(); err != nil {
			return item, err
		}
	}
	item.field = f
	if p.has("(") && f.name == "count" || p.has(".") {
		return item, fail(http.StatusBadRequest, "PGRST123", "Use of aggregate functions is not allowed")
	}
	if p.has("(") || p.has("!") {
		return item, fail(http.StatusBadRequest, "PGRST200", fmt.Sprintf("Could not find a relationship to '%s' in the schema cache", f.name)).
			details("Embedding of related tables is not served by this version of Sluice.").
			hint("Select the related rows in a request of their own, or through a view or function.")
	}
	if p.take("::") {
		start := p.pos
		for !p.done() && isCastByte(p.text[p.pos]) {
			p.pos++
		}
		if item.cast = strings.TrimSpace(p.text[start:p.pos]); item.cast == "" {
			return item, p.fail("a type name")
		}
		if p.has(".") {
			return item, fail(http.StatusBadRequest, "PGRST123", "Use of aggregate functions is not allowed")
		}
	}
	return item, nil
}

func notServed(what string) *Error {
	return fail(http.StatusBadRequest, "PGRST127", "Feature not implemented").details(what + " is not served by this version of Sluice.")
}

func isCastByte(c byte) bool {
	return c == '_' || c == ' ' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// parseOrder reads order.
func parseOrder(text string) ([]orderTerm, error) {
	p := &parser{what: "order", text: text}
	var out []orderTerm
	for {
		f, err := p.field()
		if err != nil {
			return nil, err
		}
		if p.has("(") {
			return nil, fail(http.StatusBadRequest, "PGRST108", fmt.Sprintf("'%s' is not an embedded resource in this request", f.name)).
				hint("Verify that '" + f.name + "' is included in the 'select' query parameter.")
		}
		term := orderTerm{field: f}
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
		out = append(out, term)
		if p.done() {
			return out, nil
		}
		if len(out) >= maxItems || !p.take(",") {
			return nil, p.fail(`"," or end of input`)
		}
	}
}

// parseColumns reads columns and on_conflict: a list of names.
func parseColumns(what, text string) ([]string, error) {
	p := &parser{what: what, text: text}
	var out []string
	for {
		name, err := p.name()
		if err != nil {
			return nil, err
		}
		out = append(out, name)
		if p.done() {
			return out, nil
		}
		if len(out) >= maxItems || !p.take(",") {
			return nil, p.fail(`"," or end of input`)
		}
	}
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
	case contains(quantOps, f.op):
		if f.quant, ok = inside(); !ok || f.quant != "" && f.quant != "any" && f.quant != "all" {
			return bad()
		}
	case contains(textOps, f.op):
		if f.config, ok = inside(); !ok {
			return bad()
		}
	case contains(simpleOps, f.op), f.op == "in", f.op == "is":
	default:
		return bad()
	}
	if !p.take(".") {
		return bad()
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

var isValues = map[string]string{"null": "null", "not_null": "not null", "true": "true", "false": "false", "unknown": "unknown"}

// value checks what belongs to the operator.
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
			for !p.done() && p.text[p.pos] != '"' {
				if p.text[p.pos] == '\\' && p.pos+1 < len(p.text) {
					p.pos++
				}
				b.WriteByte(p.text[p.pos])
				p.pos++
			}
			if !p.take(`"`) {
				return nil, p.fail(`"\""`)
			}
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

// parseLogic reads and=(…), or=(…).
func parseLogic(or, negate bool, text string) (tree, error) {
	p := &parser{what: "logic tree", text: text}
	t, err := p.group(or, negate, 0)
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
	leaf.value = p.treeValue()
	if err := p.finish(&leaf); err != nil {
		return tree{}, err
	}
	return tree{leaf: &leaf}, nil
}

// treeValue reads a value inside a tree: quoted, a literal in braces, or a run up
// to a comma or parenthesis.
func (p *parser) treeValue() string {
	var b strings.Builder
	if p.take(`"`) {
		for !p.done() && p.text[p.pos] != '"' {
			if p.text[p.pos] == '\\' && p.pos+1 < len(p.text) {
				p.pos++
			}
			b.WriteByte(p.text[p.pos])
			p.pos++
		}
		p.take(`"`)
		return b.String()
	}
	braces := 0
	for !p.done() {
		c := p.text[p.pos]
		if braces == 0 && (c == ',' || c == ')') {
			break
		}
		switch c {
		case '{':
			braces++
		case '}':
			braces = max(0, braces-1)
		}
		b.WriteByte(c)
		p.pos++
	}
	return b.String()
}
