package phoenix

import (
	"encoding/json"
	"unicode/utf8"
)

// The functions of this file read JSON that json.Valid has accepted. On other
// input they end without an answer, never beyond the slice.

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the index behind the string that starts at i.
func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// skipValue returns the index behind the value that starts at i.
func skipValue(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = skipString(b, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\n', '\r':
			i++
			continue
		default:
			for i < len(b) && !isDelimiter(b[i]) {
				i++
			}
		}
		if depth <= 0 {
			return i
		}
	}
	return len(b)
}

func isDelimiter(c byte) bool {
	switch c {
	case ',', ':', '}', ']', '{', '[', '"', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}

// eachElement calls fn for every element of an array until fn returns false.
// It returns false when b is no array.
func eachElement(b []byte, fn func(value []byte) bool) bool {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '[' {
		return false
	}
	for i = skipSpace(b, i+1); i < len(b) && b[i] != ']'; {
		end := skipValue(b, i)
		if !fn(b[i:end]) {
			return true
		}
		if i = skipSpace(b, end); i < len(b) && b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	return true
}

// eachMember calls fn for every member of an object with the member's whole
// text, its unquoted key and its value, until fn returns false. It returns
// false when b is no object.
func eachMember(b []byte, fn func(member, key, value []byte) bool) bool {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	for i = skipSpace(b, i+1); i < len(b) && b[i] == '"'; {
		start := i
		i = skipString(b, i)
		key, ok := unquote(b[start:i])
		if i = skipSpace(b, i); !ok || i >= len(b) || b[i] != ':' {
			return false
		}
		i = skipSpace(b, i+1)
		end := skipValue(b, i)
		if i >= end {
			return false
		}
		if !fn(b[start:end], key, b[i:end]) {
			return true
		}
		if i = skipSpace(b, end); i < len(b) && b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	return true
}

// unquote returns the content of a JSON string; it aliases b where it can.
func unquote(b []byte) ([]byte, bool) {
	if len(b) < 2 || b[0] != '"' {
		return nil, false
	}
	for _, c := range b {
		if c == '\\' {
			var s string
			if json.Unmarshal(b, &s) != nil {
				return nil, false
			}
			return []byte(s), true
		}
	}
	return b[1 : len(b)-1], true
}

// IsObject reports whether valid JSON is an object.
func IsObject(b []byte) bool {
	i := skipSpace(b, 0)
	return i < len(b) && b[i] == '{'
}

// IsNull reports whether valid JSON is null.
func IsNull(b []byte) bool {
	i := skipSpace(b, 0)
	return i < len(b) && b[i] == 'n'
}

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become the
// replacement character.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\t':
				dst = append(dst, '\\', 't')
			case '\r':
				dst = append(dst, '\\', 'r')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\ufffd"...)
			start = i + 1
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// AppendMembers appends the members of object b, without braces, except those
// whose key is in without. It reports whether it appended any.
func AppendMembers(dst, b []byte, without ...string) ([]byte, bool) {
	any := false
	eachMember(b, func(member, key, _ []byte) bool {
		for _, w := range without {
			if string(key) == w {
				return true
			}
		}
		if any {
			dst = append(dst, ',')
		}
		dst = append(dst, member...)
		any = true
		return true
	})
	return dst, any
}
