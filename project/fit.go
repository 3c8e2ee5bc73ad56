package project

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// fit makes the values of a raw tree those that t's fields take: strings where a
// number or boolean is wanted, which env(NAME) gives, are converted. What does
// not fit is removed and returned, one error for each key; the decoder would
// stop at the first.
func fit(raw map[string]any, t reflect.Type, prefix string) (wrong []error) {
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("toml")
		v, ok := raw[name]
		if !ok {
			continue
		}
		key := join(prefix, name)
		if sub, ok := v.(map[string]any); ok && f.Type.Kind() == reflect.Struct {
			wrong = append(wrong, fit(sub, f.Type, key)...)
			continue
		}
		if sections, ok := v.(map[string]any); ok && f.Type.Kind() == reflect.Map && f.Type.Elem().Kind() == reflect.Struct {
			for _, section := range sortedKeys(sections) {
				sub, ok := sections[section].(map[string]any)
				if !ok {
					wrong = append(wrong, fmt.Errorf("%s: must be a section, not %s", join(key, section), kindOf(sections[section])))
					delete(sections, section)
					continue
				}
				wrong = append(wrong, fit(sub, f.Type.Elem(), join(key, section))...)
			}
			continue
		}
		x, err := fitValue(v, f.Type)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", key, err))
			delete(raw, name)
			continue
		}
		raw[name] = x
	}
	return wrong
}

func fitValue(v any, t reflect.Type) (any, error) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	must := func(want string) (any, error) { return nil, fmt.Errorf("must be %s, not %s", want, kindOf(v)) }
	s, isString := v.(string)
	switch {
	case t == reflect.TypeFor[Duration]():
		if !isString {
			return must("a duration such as \"30s\" or \"2m\"")
		}
		return s, new(Duration).UnmarshalText([]byte(s))
	case isString && t.Kind() != reflect.Slice && t.Kind() != reflect.Map && t.Kind() != reflect.Struct:
		return parseAs(s, t)
	}
	switch t.Kind() {
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			return must("true or false")
		}
	case reflect.Int:
		if _, ok := v.(int64); !ok {
			return must("a whole number")
		}
	case reflect.Slice:
		list, ok := v.([]any)
		if !ok {
			return must("a list of strings")
		}
		for _, e := range list {
			if _, ok := e.(string); !ok {
				return nil, fmt.Errorf("must be a list of strings, and holds %s", kindOf(e))
			}
		}
	case reflect.Map:
		section, ok := v.(map[string]any)
		if !ok {
			return must("a section")
		}
		for k, e := range section {
			if _, ok := e.(string); !ok && t.Elem().Kind() == reflect.String {
				return nil, fmt.Errorf("%s must be a string, not %s", k, kindOf(e))
			}
		}
	case reflect.Struct:
		return must("a section")
	default:
		return must("a string")
	}
	return v, nil
}

// kindOf names the kind of a TOML value.
func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case bool:
		return "true or false"
	case int64:
		return "a whole number"
	case float64:
		return "a fraction"
	case []any, []map[string]any:
		return "a list"
	case map[string]any:
		return "a section"
	case time.Time:
		return "a date"
	}
	return fmt.Sprintf("a %T", v)
}

// parseAs converts a string that stands for a value of another type.
func parseAs(s string, t reflect.Type) (any, error) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[Duration]():
		return s, nil
	case t.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return nil, fmt.Errorf("%q is neither true nor false", s)
		}
		return b, nil
	case t.Kind() == reflect.Int:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", s)
		}
		return n, nil
	case t.Kind() == reflect.Slice:
		var out []any
		for _, part := range strings.Split(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
		return out, nil
	}
	return s, nil
}
