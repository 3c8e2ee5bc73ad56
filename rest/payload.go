package rest

import (
	"bytes"
	"encoding/json"
	"iter"
	"net/http"
	"slices"
	"unicode/utf8"
)

// payload is a JSON body: its text for PostgreSQL, and its keys.
type payload struct {
	text  []byte
	array bool
	rows  int
	keys  []string // of all objects, sorted; no more than maxKeys
	same  bool     // all objects have the same keys
}

// maxKeys bounds the different keys that are kept of a body: one more than a
// relation has columns or a function arguments, so that of more one is unknown.
const maxKeys = 1601

func invalidJSON() error {
	return fail(http.StatusBadRequest, "PGRST102", "Empty or invalid json")
}

// readPayload reads a body of one object or an array of objects where it stands:
// of its values nothing is made. Without named the keys are not asked for.
func readPayload(text []byte, named bool) (payload, error) {
	p := payload{text: text, same: true}
	if !json.Valid(text) {
		return p, invalidJSON()
	}
	c := collector{at: map[string]int{}}
	switch first := bytes.TrimSpace(text)[0]; {
	case first == '{':
		p.rows = 1
		if named {
			c.add(0, text)
		}
	case first != '[':
		return p, invalidJSON()
	default:
		p.array = true
		for o := range elements(text) {
			if o[0] != '{' {
				return p, fail(http.StatusBadRequest, "PGRST102", "All object keys must match")
			}
			if named {
				n, added := c.add(p.rows, o)
				p.same = p.same && n == len(c.keys) && (!added || p.rows == 0)
			}
			p.rows++
		}
	}
	slices.Sort(c.keys)
	p.keys = c.keys
	return p, nil
}

// only returns the first of the objects alone.
func (p payload) only(named bool) (payload, error) {
	if !p.array {
		return p, nil
	}
	for o := range elements(p.text) {
		return readPayload(o, named)
	}
	return p, invalidJSON()
}

// collector collects the keys of objects.
type collector struct {
	keys []string
	at   map[string]int // where a key was found first in keys
	last []int          // the object that had it last
}

// add adds the keys of object number i, and returns how many there are and whether
// one is new.
func (c *collector) add(i int, object []byte) (n int, added bool) {
	for name := range members(object) {
		k, known := c.at[string(name)]
		switch {
		case known && c.last[k] == i: // once more
		case known:
			c.last[k] = i
			n++
		case len(c.keys) < maxKeys:
			key := string(name)
			c.at[key] = len(c.keys)
			c.keys, c.last = append(c.keys, key), append(c.last, i)
			n, added = n+1, true
		}
	}
	return n, added
}

// elements are the elements of a valid JSON array.
func elements(array []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := next(array, next(array, 0)+1); array[i] != ']'; {
			end := skip(array, i)
			if !yield(array[i:end]) {
				return
			}
			if i = next(array, end); array[i] == ',' {
				i = next(array, i+1)
			}
		}
	}
}

// members are the names and values of a valid JSON object. A name may come again.
func members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for i := next(object, next(object, 0)+1); object[i] != '}'; {
			end := skip(object, i)
			name := unquoted(object[i:end])
			i = next(object, next(object, end)+1) // behind the colon
			end = skip(object, i)
			if !yield(name, object[i:end]) {
				return
			}
			if i = next(object, end); object[i] == ',' {
				i = next(object, i+1)
			}
		}
	}
}

// unquoted is the text of a JSON string, as encoding/json reads it.
func unquoted(literal []byte) []byte {
	text := literal[1 : len(literal)-1]
	if bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text) {
		return text
	}
	var s string
	_ = json.Unmarshal(literal, &s) // it is a string
	return []byte(s)
}

// next is the place of the first byte from i on that is no blank.
func next(text []byte, i int) int {
	for text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r' {
		i++
	}
	return i
}

// skip is the place behind the JSON value that begins at i.
func skip(text []byte, i int) int {
	depth := 0
	for ; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // of what holds a number or word
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}
