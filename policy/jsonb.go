package policy

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var plainNumber = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,17}|-?(0|[1-9][0-9]{0,17})\.[0-9]{1,18})$`)

// jsonText is ->> of what was found.
func jsonText(v any) value {
	switch v := v.(type) {
	case nil:
		return null
	case string:
		return text(v)
	case bool:
		return text(strconv.FormatBool(v))
	case json.Number:
		// A fraction of nothing but zeros below a minus would lose it.
		if s := v.String(); plainNumber.MatchString(s) && (s[0] != '-' || strings.Trim(s, "-0.") != "") {
			return text(s)
		}
	}
	return unsure // an object or array: jsonb writes them its own way
}

// jsonFunctions are those of jsonb, by their names in C.
var jsonFunctions = map[string]comparison{
	"jsonb_object_field":       func(a, b *value) value { return jsonValue(field(a, b)) },
	"jsonb_object_field_text":  func(a, b *value) value { v, ok := field(a, b); return jsonTextOf(v, ok) },
	"jsonb_array_element":      func(a, b *value) value { return jsonValue(item(a, b)) },
	"jsonb_array_element_text": func(a, b *value) value { v, ok := item(a, b); return jsonTextOf(v, ok) },
	"jsonb_extract_path":       func(a, b *value) value { return jsonValue(path(a, b)) },
	"jsonb_extract_path_text":  func(a, b *value) value { v, ok := path(a, b); return jsonTextOf(v, ok) },
	"jsonb_exists":             func(a, b *value) value { return truth(exists(a.any, b.s)) },
	"jsonb_exists_any":         func(a, b *value) value { return existsOf(a, b, false) },
	"jsonb_exists_all":         func(a, b *value) value { return existsOf(a, b, true) },
}

func jsonValue(v any, ok bool) value {
	if !ok {
		return null
	}
	return value{kind: vJSON, any: v}
}

func jsonTextOf(v any, ok bool) value {
	if !ok {
		return null
	}
	return jsonText(v)
}

func field(a, b *value) (any, bool) {
	m, _ := a.any.(map[string]any)
	v, ok := m[b.s]
	return v, ok
}

// item is a position of an array. A scalar is stored as an array of itself, and
// PostgreSQL finds it there.
func item(a, b *value) (any, bool) {
	list, ok := a.any.([]any)
	if _, object := a.any.(map[string]any); !ok && !object {
		list = []any{a.any}
	}
	i := b.n
	if i < 0 {
		i += int64(len(list))
	}
	if i < 0 || i >= int64(len(list)) {
		return nil, false
	}
	return list[i], true
}

// path follows names and positions; a NULL among them finds nothing.
func path(a, b *value) (any, bool) {
	at := a.any
	steps, _ := b.any.([]value)
	for _, s := range steps {
		if s.kind != vText {
			return nil, false
		}
		switch v := at.(type) {
		case map[string]any:
			next, ok := v[s.s]
			if !ok {
				return nil, false
			}
			at = next
		case []any:
			n, err := strconv.ParseInt(strings.TrimLeft(s.s, " \t\n\v\f\r"), 10, 32)
			if err != nil {
				return nil, false
			}
			next, ok := item(&value{any: v}, &value{n: n})
			if !ok {
				return nil, false
			}
			at = next
		default:
			return nil, false
		}
	}
	return at, true
}

// exists is ?: a member's name, a string of an array, or the string itself.
func exists(v any, key string) bool {
	switch v := v.(type) {
	case map[string]any:
		_, ok := v[key]
		return ok
	case []any:
		return slices.ContainsFunc(v, func(x any) bool { s, ok := x.(string); return ok && s == key })
	case string:
		return v == key
	}
	return false
}

func existsOf(a, b *value, all bool) value {
	list, _ := b.any.([]value)
	for _, k := range list {
		if k.kind == vText && exists(a.any, k.s) != all {
			return truth(!all)
		}
	}
	return truth(all)
}
