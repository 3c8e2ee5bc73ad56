package changes

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sluice-dev/sluice/policy"
)

// condition is one segment of a filter: column=[not.]operator.value.
type condition struct {
	column string
	op     policy.Op
	// value is the operand; for OpIn the text of an array literal.
	value  string
	negate bool
	// list holds the elements of value for OpIn, nil when only PostgreSQL can
	// tell: NULLs, arrays in arrays, what is no array literal.
	list []string
	// text is the condition as the original's messages show it, and tells
	// conditions apart.
	text string
}

// String is the condition as a client writes it.
func (c condition) String() string {
	value, not := c.value, ""
	if c.negate {
		not = "not."
	}
	if c.op == policy.OpIn && len(value) >= 2 {
		value = "(" + value[1:len(value)-1] + ")"
	}
	return c.column + "=" + not + c.op.String() + "." + value
}

func newCondition(column string, op policy.Op, value string, negate bool) condition {
	c := condition{column: column, op: op, value: value, negate: negate}
	if op == policy.OpIn {
		c.list = arrayElements(value)
	}
	c.text = fmt.Sprintf("{%s, %s, %s, %t}", quoteElixir(column), quoteElixir(op.String()), quoteElixir(value), negate)
	return c
}

// Bounds of a filter. The original bounds neither; the list of in is bounded at
// 100 elements when it is validated.
const (
	maxFilterBytes = 32 << 10
	maxConditions  = 100
)

// parseFilter reads a filter (spec postgres-changes 3.4). Blank means none. The
// error is the text behind "Error parsing `filter` params: ".
func parseFilter(s string) ([]condition, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	if len(s) > maxFilterBytes {
		return nil, fmt.Errorf("filter is longer than %d bytes", maxFilterBytes)
	}
	segments := splitFilter(s)
	if len(segments) > maxConditions {
		return nil, fmt.Errorf("filter has more than %d conditions", maxConditions)
	}
	out := make([]condition, 0, len(segments))
	for _, seg := range segments {
		c, err := parseCondition(strings.TrimSpace(seg))
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// splitFilter divides at commas outside of parentheses and quotes. A quote
// opens only right behind one of . ( and comma.
func splitFilter(s string) []string {
	var out []string
	start, depth := 0, 0
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"' && i > 0 && strings.IndexByte(".(,", s[i-1]) >= 0:
			quoted = true
		case c == '(':
			depth++
		case c == ')':
			depth = max(0, depth-1)
		case c == ',' && depth == 0:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

func parseCondition(seg string) (condition, error) {
	if seg == "" {
		return condition{}, errors.New("filter must not contain empty segments (check for extra commas)")
	}
	column, rest, ok := strings.Cut(seg, "=")
	if !ok {
		return condition{}, errors.New(inspect([]any{seg}))
	}
	rest, negate := strings.CutPrefix(rest, "not.")
	name, value, ok := strings.Cut(rest, ".")
	if !ok {
		return condition{}, errors.New(inspect([]any{rest}))
	}
	op, ok := policy.ParseOp(name)
	if !ok {
		return condition{}, errors.New(inspect([]any{name, value}))
	}
	if op == policy.OpIn {
		if len(value) < 2 || value[0] != '(' || value[len(value)-1] != ')' {
			return condition{}, errors.New("`in` filter value must be wrapped by parentheses")
		}
		value = "{" + value[1:len(value)-1] + "}"
	} else {
		value = unquote(value)
	}
	return newCondition(column, op, value, negate), nil
}

// unquote removes quotes that surround the whole value; otherwise it is taken as
// it stands.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			if i == len(s)-1 {
				return b.String()
			}
			return s
		default:
			b.WriteByte(s[i])
		}
	}
	return s
}

// arrayElements reads a flat array literal without NULLs; nil is any other. It
// follows PostgreSQL in what it reads and may give up where PostgreSQL does not.
func arrayElements(s string) []string {
	out := []string{}
	s = strings.TrimLeft(s[1:], " ")
	if s == "}" {
		return out
	}
	for {
		var v string
		var ok bool
		if v, s, ok = cutElement(s); !ok || s == "" {
			return nil
		}
		out = append(out, v)
		switch rest := s[1:]; {
		case s[0] == ',':
			s = strings.TrimLeft(rest, " ")
		case s[0] == '}' && rest == "":
			return out
		default:
			return nil
		}
	}
}

// cutElement reads one element and the blanks behind it.
func cutElement(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ",}")
		if end < 0 {
			return "", "", false
		}
		v := strings.TrimRight(s[:end], " ")
		if v == "" || strings.EqualFold(v, "null") || strings.ContainsAny(v, "{\"\\\t\n\v\f\r") {
			return "", "", false
		}
		return v, s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), strings.TrimLeft(s[i+1:], " "), true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}
