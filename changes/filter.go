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
}

// String renders the condition as the original's messages do.
func (c condition) String() string {
	return fmt.Sprintf("{%s, %s, %s, %t}", quoteElixir(c.column), quoteElixir(c.op.String()), quoteElixir(c.value), c.negate)
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
	return condition{column, op, value, negate}, nil
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
