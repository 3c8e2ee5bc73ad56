package rest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// payload is a JSON body: its text for PostgreSQL, and its keys.
type payload struct {
	text  []byte
	array bool
	rows  int
	keys  []string // of the first object
	same  bool     // all objects have the same keys
	any   []string // keys of all objects
}

// readPayload parses a body of one object or an array of objects. ragged: the
// objects need not have the same keys.
func readPayload(text []byte, ragged bool) (payload, error) {
	invalid := fail(http.StatusBadRequest, "PGRST102", "Empty or invalid json")
	p := payload{text: text, same: true}
	trimmed := strings.TrimSpace(string(text))
	if trimmed == "" {
		return p, invalid
	}
	var objects []map[string]json.RawMessage
	if trimmed[0] == '[' {
		p.array = true
		if err := json.Unmarshal(text, &objects); err != nil {
			var anything []json.RawMessage
			if json.Unmarshal(text, &anything) == nil {
				return p, fail(http.StatusBadRequest, "PGRST102", "All object keys must match")
			}
			return p, invalid
		}
	} else {
		var one map[string]json.RawMessage
		if err := json.Unmarshal(text, &one); err != nil || one == nil {
			return p, invalid
		}
		objects = append(objects, one)
	}
	all := map[string]bool{}
	for i, o := range objects {
		if o == nil {
			return p, fail(http.StatusBadRequest, "PGRST102", "All object keys must match")
		}
		for k := range o {
			if !all[k] {
				all[k] = true
				p.any = append(p.any, k)
				p.same = p.same && i == 0
			}
		}
		p.same = p.same && len(o) == len(all)
	}
	p.rows = len(objects)
	slices.Sort(p.any)
	p.keys = p.any
	return p, nil
}

// only returns the first of the objects alone.
func (p payload) only() (payload, error) {
	if !p.array {
		return p, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(p.text, &list); err != nil || len(list) == 0 {
		return p, fail(http.StatusBadRequest, "PGRST102", "Empty or invalid json")
	}
	return readPayload(list[0], true)
}
