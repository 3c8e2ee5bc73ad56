package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// node is one of PostgreSQL's parse nodes, as nodeToString writes it:
// {TAG :field value …}. A value is a string (any single token), a *node, a
// []any (a list) or a datum; nil stands for <>.
type node struct {
	tag    string
	fields map[string]any
}

// datum is the bytes of a constant as they are in the server's memory.
type datum []byte

// maxNodeDepth bounds the nesting of a tree that is read.
const maxNodeDepth = 1000

// parseNode reads what pg_policy.polqual::text or pg_proc.prosqlbody::text says:
// a node or a list.
func parseNode(text string) (any, error) {
	p := &nodeParser{text: text}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.at != len(text) {
		return nil, p.fail("text behind the end")
	}
	return v, nil
}

type nodeParser struct {
	text string
	at   int
}

func (p *nodeParser) fail(what string) error {
	return fmt.Errorf("read node tree: %s at byte %d", what, p.at)
}

func (p *nodeParser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \n\t", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *nodeParser) peek() byte {
	if p.space(); p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

// token returns the text up to a delimiter, with backslashes removed. <> is nil.
func (p *nodeParser) token() (any, error) {
	p.space()
	start := p.at
	var b strings.Builder
	for p.at < len(p.text) && strings.IndexByte(" \n\t(){}", p.text[p.at]) < 0 {
		if p.text[p.at] == '\\' && p.at+1 < len(p.text) {
			p.at++
		}
		b.WriteByte(p.text[p.at])
		p.at++
	}
	switch raw := p.text[start:p.at]; {
	case raw == "":
		return nil, p.fail("a value is missing")
	case raw == "<>":
		return nil, nil
	case raw == `""`:
		return "", nil
	case len(raw) > 1 && raw[0] == '"' && raw[len(raw)-1] == '"': // a string in a list
		return strings.TrimSuffix(b.String()[1:], `"`), nil
	}
	return b.String(), nil
}

func (p *nodeParser) value(depth int) (any, error) {
	if depth > maxNodeDepth {
		return nil, p.fail("too deep")
	}
	switch p.peek() {
	case '{':
		return p.node(depth)
	case '(':
		return p.list(depth)
	}
	return p.token()
}

func (p *nodeParser) node(depth int) (any, error) {
	p.at++ // {
	tag, err := p.token()
	if err != nil {
		return nil, err
	}
	name, ok := tag.(string)
	if !ok {
		return nil, p.fail("a node has no name")
	}
	n := &node{tag: name, fields: map[string]any{}}
	for {
		switch p.peek() {
		case '}':
			p.at++
			return n, nil
		case ':':
			p.at++
		default:
			return nil, p.fail("a field's name is missing")
		}
		key, err := p.token()
		if err != nil {
			return nil, err
		}
		field, _ := key.(string)
		if n.fields[field], err = p.field(field, depth); err != nil {
			return nil, err
		}
	}
}

// field reads a field's value; a constant is a length and its bytes in brackets.
func (p *nodeParser) field(name string, depth int) (any, error) {
	v, err := p.value(depth + 1)
	if err != nil || name != "constvalue" || v == nil {
		return v, err
	}
	text, _ := v.(string)
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return nil, p.fail("the length of a constant is missing")
	}
	if t, err := p.token(); err != nil || t != "[" {
		return nil, p.fail("a constant has no bytes")
	}
	var d datum
	for {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		if t == "]" {
			break
		}
		text, _ := t.(string)
		b, err := strconv.ParseInt(text, 10, 16)
		if err != nil || b < -128 || b > 255 {
			return nil, p.fail("a constant has a byte that is none")
		}
		d = append(d, byte(b))
	}
	// By-value types always show a whole word.
	if len(d) < n {
		return nil, p.fail("a constant is cut off")
	}
	return d[:n], nil
}

func (p *nodeParser) list(depth int) (any, error) {
	p.at++ // (
	out := []any{}
	for {
		switch p.peek() {
		case ')':
			p.at++
			return out, nil
		case 0:
			return nil, p.fail("a list has no end")
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
}

// The accessors below return the zero value for what is missing: the caller asks
// for what it needs and refuses a tag that it does not know.

func (n *node) str(field string) string {
	s, _ := n.fields[field].(string)
	return s
}

func (n *node) num(field string) int {
	v, _ := strconv.Atoi(n.str(field))
	return v
}

func (n *node) oid(field string) uint32 {
	v, _ := strconv.ParseUint(n.str(field), 10, 32)
	return uint32(v)
}

func (n *node) flag(field string) bool { return n.str(field) == "true" }

func (n *node) sub(field string) *node {
	v, _ := n.fields[field].(*node)
	return v
}

func (n *node) list(field string) []any {
	v, _ := n.fields[field].([]any)
	return v
}

// set reports whether a field has a value that is not <>.
func (n *node) set(field string) bool { return n.fields[field] != nil }
