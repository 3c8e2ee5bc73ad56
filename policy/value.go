package policy

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// value is what an expression evaluates to here. unsure is every case in which
// PostgreSQL might answer otherwise or raise an error: the row is then judged by
// it. A text is the type's own output, which for the types that are evaluated here
// is equal where the values are.
type value struct {
	kind valueKind
	n    int64  // vBool (1: true), vInt
	s    string // vText
	any  any    // vJSON: as encoding/json reads it; vArray: []value
}

type valueKind uint8

const (
	vNull valueKind = iota
	vBool
	vInt
	vText
	vJSON
	vArray
	vUnsure
	// vAny is some value, or NULL, that is not looked at: see Bound.Never.
	vAny
)

var (
	null   = value{}
	unsure = value{kind: vUnsure}
	some   = value{kind: vAny}
	no     = value{kind: vBool}
	yes    = value{kind: vBool, n: 1}
)

// open reports whether v is no definite value.
func (x value) open() bool { return x.kind >= vUnsure }

func truth(b bool) value {
	if b {
		return yes
	}
	return no
}

func text(s string) value { return value{kind: vText, s: s} }

// fromText reads a type's output.
func fromText(c class, s string) value {
	switch c {
	case cBool:
		switch s {
		case "t", "true":
			return yes
		case "f", "false":
			return no
		}
	case cInt:
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return value{kind: vInt, n: n}
		}
	case cText:
		return text(s)
	case cJSON:
		return parseJSON(s)
	}
	return unsure
}

// text writes a value as its type's input function reads it.
func (x value) text() string {
	switch x.kind {
	case vBool:
		return strconv.FormatBool(x.n == 1)
	case vInt:
		return strconv.FormatInt(x.n, 10)
	case vText:
		return x.s
	case vJSON:
		out, _ := json.Marshal(x.any) // what was read can be written
		return string(out)
	case vArray:
		list, _ := x.any.([]value)
		out := []byte{'{'}
		for i, el := range list {
			if i > 0 {
				out = append(out, ',')
			}
			if el.kind == vNull {
				out = append(out, "NULL"...)
			} else {
				out = appendElement(out, el.text())
			}
		}
		return string(append(out, '}'))
	}
	return ""
}

// parseArray reads an array of one dimension as PostgreSQL writes it.
func parseArray(c class, s string) value {
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return unsure // bounds, or cut off
	}
	s = s[1 : len(s)-1]
	out := []value{}
	for len(s) > 0 {
		var b strings.Builder
		quoted := s[0] == '"'
		i := 0
		if quoted {
			i = 1
		}
		for ; i < len(s); i++ {
			switch ch := s[i]; {
			case ch == '\\' && i+1 < len(s):
				i++
				b.WriteByte(s[i])
				continue
			case quoted && ch == '"', !quoted && ch == ',':
			case !quoted && (ch == '{' || ch == '"'):
				return unsure
			default:
				b.WriteByte(ch)
				continue
			}
			break
		}
		if quoted {
			if i >= len(s) {
				return unsure
			}
			i++
		}
		x := null
		if quoted || !strings.EqualFold(b.String(), "NULL") {
			x = fromText(c, b.String())
		}
		if x.kind == vUnsure {
			return unsure
		}
		out = append(out, x)
		if i < len(s) {
			if s[i] != ',' || i+1 == len(s) {
				return unsure
			}
			i++
		}
		s = s[i:]
	}
	return value{kind: vArray, any: out}
}

// parseJSON reads a jsonb. What PostgreSQL reads otherwise, or refuses, is unsure.
func parseJSON(s string) value {
	if !utf8.ValidString(s) || strings.Contains(s, "\ufffd") {
		return unsure
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var out any
	if d.Decode(&out) != nil || !plainJSON(out, 0) {
		return unsure
	}
	if _, err := d.Token(); err != io.EOF { // something behind it
		return unsure
	}
	return value{kind: vJSON, any: out}
}

// plainJSON reports whether nothing is in v that PostgreSQL may refuse in a jsonb: a
// zero byte, half a surrogate pair, which Go replaces, a number out of range.
func plainJSON(v any, depth int) bool {
	if depth > maxNodeDepth {
		return false
	}
	switch v := v.(type) {
	case string:
		return !strings.ContainsAny(v, "\x00\ufffd")
	case json.Number:
		return len(v) <= 100 && !strings.ContainsAny(v.String(), "eE")
	case map[string]any:
		for k, x := range v {
			if strings.ContainsAny(k, "\x00\ufffd") || !plainJSON(x, depth+1) {
				return false
			}
		}
	case []any:
		for _, x := range v {
			if !plainJSON(x, depth+1) {
				return false
			}
		}
	}
	return true
}
