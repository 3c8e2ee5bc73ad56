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
	// maxEmbedDepth bounds resources within resources, maxEmbeds all of a request.
	maxEmbedDepth = 16
	maxEmbeds     = 100
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

// parser reads one value of the query string.
type parser struct {
	what, text string
	pos        int
	// shift is what stands before text in the column numbers of messages.
	shift int
}

// fail is a parse error with PostgREST's message; the column counts from 1.
func (p *parser) fail(expecting string) *Error {
	found := "end of input"
	if p.pos < len(p.text) {
		r, _ := utf8.DecodeRuneInString(p.text[p.pos:])
		found = fmt.Sprintf("%q", string(r))
		if strings.HasSuffix(expecting, "end of input") {
			found = fmt.Sprintf("%q", r)
		}
	}
	column := p.shift + utf8.RuneCountInString(p.text[:min(p.pos, len(p.text))]) + 1
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
		s, err := p.quoted()
		p.blanks()
		return s, err
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

// quoted reads up to the closing quote; a backslash escapes any byte.
func (p *parser) quoted() (string, *Error) {
	var b strings.Builder
	for ; !p.done(); p.pos++ {
		switch c := p.text[p.pos]; {
		case c == '\\' && p.pos+1 < len(p.text):
			p.pos++
			b.WriteByte(p.text[p.pos])
		case c == '"':
			p.pos++
			return b.String(), nil
		default:
			b.WriteByte(c)
		}
	}
	return "", p.fail(`"\""`)
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
		if len(s.key) > 1 && s.key[0] == '-' && (s.key[1] < '0' || s.key[1] > '9') {
			p.pos = start + 1
			return f, p.fail("digit")
		}
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
