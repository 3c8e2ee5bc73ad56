package rest

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// reserved are keys that are no filters. Those of them that a path may precede
// belong to the embedded resource at its end.
var reserved = map[string]bool{
	"select": true, "order": true, "limit": true, "offset": true, "columns": true, "on_conflict": true,
	"and": true, "or": true, "not.and": true, "not.or": true,
}

var pathed = []string{"order", "limit", "offset", "not.and", "not.or", "and", "or"} // the longer first

// param is a pair that belongs to an embedded resource, until select is known.
type param struct {
	path       []string
	key, value string
	field      field // when key is empty: of a filter
}

// parseQuery sorts the pairs into reserved keys, filters and, for functions
// called with GET, arguments.
func (r *request) parseQuery(raw string) error {
	var later []param
	seen := map[string]bool{}
	n := 0
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, err1 := url.QueryUnescape(k)
		value, err2 := url.QueryUnescape(v)
		if err1 != nil || err2 != nil || strings.ContainsRune(key, 0) || strings.ContainsRune(value, 0) {
			return fail(http.StatusBadRequest, "PGRST100", `"failed to parse query string" (line 1, column 1)`).details("a percent escape is not valid")
		}
		if n++; n > maxFilters {
			return fail(http.StatusBadRequest, "PGRST100", `"failed to parse query string" (line 1, column 1)`).details(fmt.Sprintf("more than %d filters", maxFilters))
		}
		if reserved[key] && key != "and" && key != "or" && key != "not.and" && key != "not.or" {
			if seen[key] {
				continue
			}
			seen[key] = true
		}
		p, err := r.parsePair(key, value)
		if err != nil {
			return err
		}
		if len(p.path) > 0 {
			later = append(later, p)
		}
	}
	return r.place(later)
}

// parsePair reads one pair, or returns it when its key has a path.
func (r *request) parsePair(key, value string) (p param, err error) {
	switch key {
	case "apikey": // the gateway's
		return p, nil
	case "select":
		return p, parseSelect(&r.node, value)
	case "columns":
		r.columns, err = parseColumns("columns parameter", value)
		return p, err
	case "on_conflict":
		r.onConflict, err = parseColumns("on_conflict parameter", value)
		return p, err
	}
	if reserved[key] {
		return p, r.modify(key, value)
	}
	if r.function && r.reads() && !modifiesEmbed(key) {
		isFilter := looksLikeFilter(value)
		r.args = append(r.args, argument{key, value, isFilter})
		if !isFilter {
			return p, nil
		}
	}
	if p, err = parseKey(key, value); err != nil || len(p.path) > 0 {
		return p, err
	}
	return p, r.condition(p.field, value)
}

// modifiesEmbed reports whether key ends as those of pathed do.
func modifiesEmbed(key string) bool {
	for _, m := range pathed {
		if strings.HasSuffix(key, "."+m) {
			return true
		}
	}
	return false
}

// parseKey splits a key into path and field or modifier.
func parseKey(key, value string) (param, error) {
	out := param{value: value}
	for _, m := range pathed {
		if rest, ok := strings.CutSuffix(key, "."+m); ok {
			out.key, key = m, rest
			break
		}
	}
	p := &parser{what: "filter", text: key}
	for {
		f, err := p.field()
		if err != nil {
			return out, err
		}
		switch {
		case p.done() && out.key == "":
			out.field = f
			return out, nil
		case len(f.path) > 0 || !p.done() && !p.take("."):
			return out, p.fail(`"." or end of input`)
		}
		if out.path = append(out.path, f.name); p.done() && out.key != "" {
			return out, nil
		}
		if len(out.path) > maxEmbedDepth {
			return out, p.fail("fewer levels")
		}
	}
}

// place gives pairs with a path to the embedded resources that they name.
func (r *request) place(params []param) error {
	for _, p := range params {
		n := &r.node
		for _, name := range p.path {
			if n = n.child(name); n == nil {
				return notEmbedded(name)
			}
			if n.key() != name {
				r.byTarget = append(r.byTarget, n)
			}
		}
		var err error
		if p.key != "" {
			err = n.modify(p.key, p.value)
		} else {
			err = n.condition(p.field, p.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// modify applies order, limit, offset or a tree of conditions.
func (n *node) modify(key, value string) (err error) {
	switch key {
	case "order":
		n.order, err = parseOrder(value)
	case "limit", "offset":
		i, ok := integer(value)
		switch {
		case !ok:
			return fail(http.StatusBadRequest, "PGRST100", fmt.Sprintf(`"failed to parse %s parameter (%s)" (line 1, column 1)`, key, value))
		case key == "offset":
			n.offset = max(0, i)
		case i < 0:
			return rangeError("Limit should be greater than or equal to zero.")
		default:
			n.limit = &i
		}
	default:
		var t tree
		if t, err = parseLogic(key, value); err == nil {
			n.trees = append(n.trees, t)
		}
	}
	return err
}

// condition adds a filter.
func (n *node) condition(f field, value string) error {
	flt, err := parseFilter(f, value)
	if err == nil {
		n.filter = append(n.filter, flt)
	}
	return err
}

// looksLikeFilter tells a filter on a function's result from an argument by the
// value alone.
func looksLikeFilter(value string) bool {
	p := &parser{text: value}
	var f filter
	return p.operator(&f) == nil
}

func rangeError(details string) *Error {
	return fail(http.StatusRequestedRangeNotSatisfiable, "PGRST103", "Requested range not satisfiable").details(details)
}

// parseRange reads "a-b" or "a-"; it wins over limit and offset.
func (r *request) parseRange(h string) error {
	from, to, ok := strings.Cut(h, "-")
	a, okA := integer(from)
	if !ok || !okA {
		return nil
	}
	if to == "" {
		r.offset, r.limit = a, nil
		return nil
	}
	b, okB := integer(to)
	if !okB {
		return nil
	}
	if b < a {
		return rangeError("The lower boundary must be lower than or equal to the upper boundary in the Range header.")
	}
	n := b - a + 1
	r.offset, r.limit = a, &n
	return nil
}
