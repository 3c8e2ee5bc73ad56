package rest

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// request is what a client asked for, before anything is looked up.
type request struct {
	method   string
	path     string // as SQL sees it: /messages, /rpc/f
	function bool
	name     string // relation or function
	schema   string

	items      []selectItem
	filters    []filter
	trees      []tree
	order      []orderTerm
	limit      *int64
	offset     int64
	columns    []string // nil: not given
	onConflict []string
	args       []argument // pairs of a GET on a function that are no filters
	prefer     prefer
	media      media
	body       []byte
}

type argument struct{ name, value string }

// prefer is the Prefer header.
type prefer struct {
	ret, count, resolution, missing, handling, timezone string
	maxAffected                                         int64 // -1 when not given
}

// media is the representation that is answered.
type media struct {
	single   bool
	stripped bool
	csv      bool
}

func (m media) contentType() string {
	switch {
	case m.csv:
		return "text/csv; charset=utf-8"
	case m.single && m.stripped:
		return "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8"
	case m.single:
		return "application/vnd.pgrst.object+json; charset=utf-8"
	case m.stripped:
		return "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8"
	}
	return "application/json; charset=utf-8"
}

func (r *request) reads() bool { return r.method == http.MethodGet || r.method == http.MethodHead }

// parse reads everything but the body.
func (s *Server) parse(h *http.Request) (*request, error) {
	r := &request{method: h.Method}
	parts := strings.Split(strings.Trim(h.URL.EscapedPath(), "/"), "/")
	for i := range parts {
		p, err := url.PathUnescape(parts[i])
		if err != nil {
			return nil, fail(http.StatusNotFound, "PGRST125", "Invalid path specified in request URL")
		}
		parts[i] = p
	}
	switch {
	case len(parts) == 1:
		r.name = parts[0]
	case len(parts) == 2 && parts[0] == "rpc" && parts[1] != "":
		r.function, r.name = true, parts[1]
	default:
		return nil, fail(http.StatusNotFound, "PGRST125", "Invalid path specified in request URL")
	}
	r.path = "/" + strings.Join(parts, "/")
	if err := r.checkMethod(); err != nil {
		return nil, err
	}
	var err error
	if r.prefer, err = parsePrefer(h.Header); err != nil {
		return nil, err
	}
	if r.schema, err = s.profile(h); err != nil {
		return nil, err
	}
	if err := r.parseQuery(h.URL.RawQuery); err != nil {
		return nil, err
	}
	if r.method == http.MethodGet {
		if err := r.parseRange(h.Header.Get("Range")); err != nil {
			return nil, err
		}
	}
	r.media, err = parseAccept(h.Header)
	return r, err
}

func (r *request) checkMethod() error {
	switch r.method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions:
		if r.name == "" && r.method == http.MethodPost {
			return fail(http.StatusMethodNotAllowed, "PGRST117", "Unsupported HTTP method: "+r.method)
		}
		return nil
	case http.MethodPatch, http.MethodDelete, http.MethodPut:
		if r.function {
			return fail(http.StatusMethodNotAllowed, "PGRST101", "Cannot use the "+r.method+" method on RPC")
		}
		if r.method == http.MethodPut {
			return &Error{Status: http.StatusMethodNotAllowed, Code: "PGRST127", Message: "Feature not implemented", Details: "PUT is not served by this version of Sluice; use POST with Prefer: resolution=merge-duplicates."}
		}
		if r.name != "" {
			return nil
		}
	}
	return fail(http.StatusMethodNotAllowed, "PGRST117", "Unsupported HTTP method: "+r.method)
}

// profile returns the schema that the request names.
func (s *Server) profile(h *http.Request) (string, error) {
	header := "Content-Profile"
	if h.Method == http.MethodGet || h.Method == http.MethodHead {
		header = "Accept-Profile"
	}
	name := h.Header.Get(header)
	if name == "" {
		return s.cfg.Schemas[0], nil
	}
	if !slices.Contains(s.cfg.Schemas, name) {
		return "", fail(http.StatusNotAcceptable, "PGRST106", "Invalid schema: "+name).
			hint("Only the following schemas are exposed: " + strings.Join(s.cfg.Schemas, ", "))
	}
	return name, nil
}

// parseQuery sorts the pairs into reserved keys, filters and, for functions
// called with GET, arguments.
func (r *request) parseQuery(raw string) error {
	if raw == "" {
		return nil
	}
	seen := map[string]bool{}
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
		if len(r.filters)+len(r.trees)+len(r.args) >= maxFilters {
			return fail(http.StatusBadRequest, "PGRST100", `"failed to parse query string" (line 1, column 1)`).details(fmt.Sprintf("more than %d filters", maxFilters))
		}
		if reserved[key] && key != "and" && key != "or" && key != "not.and" && key != "not.or" {
			if seen[key] {
				continue
			}
			seen[key] = true
		}
		if err := r.parsePair(key, value); err != nil {
			return err
		}
	}
	return nil
}

var reserved = map[string]bool{
	"select": true, "order": true, "limit": true, "offset": true, "columns": true, "on_conflict": true,
	"and": true, "or": true, "not.and": true, "not.or": true,
}

func (r *request) parsePair(key, value string) (err error) {
	switch key {
	case "apikey": // the gateway's
		return nil
	case "select":
		r.items, err = parseSelect(value)
		return err
	case "order":
		r.order, err = parseOrder(value)
		return err
	case "limit":
		n, ok := integer(value)
		if !ok {
			return fail(http.StatusBadRequest, "PGRST100", fmt.Sprintf(`"failed to parse limit parameter (%s)" (line 1, column 1)`, value))
		}
		if n < 0 {
			return rangeError("Limit should be greater than or equal to zero.")
		}
		r.limit = &n
		return nil
	case "offset":
		n, ok := integer(value)
		if !ok {
			return fail(http.StatusBadRequest, "PGRST100", fmt.Sprintf(`"failed to parse offset parameter (%s)" (line 1, column 1)`, value))
		}
		r.offset = max(0, n)
		return nil
	case "columns":
		r.columns, err = parseColumns("columns parameter", value)
		return err
	case "on_conflict":
		r.onConflict, err = parseColumns("on_conflict parameter", value)
		return err
	case "and", "or", "not.and", "not.or":
		t, err := parseLogic(strings.HasSuffix(key, "or"), strings.HasPrefix(key, "not."), value)
		r.trees = append(r.trees, t)
		return err
	}
	if r.function && r.reads() && !looksLikeFilter(value) {
		r.args = append(r.args, argument{key, value})
		return nil
	}
	p := &parser{what: "filter", text: key}
	f, perr := p.field()
	if perr != nil {
		return perr
	}
	if !p.done() {
		return fail(http.StatusBadRequest, "PGRST108", fmt.Sprintf("'%s' is not an embedded resource in this request", f.name)).
			hint("Verify that '" + f.name + "' is included in the 'select' query parameter.")
	}
	flt, err := parseFilter(f, value)
	if err != nil {
		return err
	}
	r.filters = append(r.filters, flt)
	return nil
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

func parsePrefer(h http.Header) (prefer, error) {
	p := prefer{maxAffected: -1}
	var invalid []string
	set := func(into *string, v string, allowed ...string) bool {
		if !slices.Contains(allowed, v) {
			return false
		}
		if *into == "" {
			*into = v
		}
		return true
	}
	for _, line := range h.Values("Prefer") {
		for part := range strings.SplitSeq(line, ",") {
			part = strings.TrimSpace(part)
			if part == "" {
				continue
			}
			k, v, _ := strings.Cut(part, "=")
			ok := false
			switch strings.TrimSpace(k) {
			case "return":
				ok = set(&p.ret, v, "minimal", "headers-only", "representation")
			case "count":
				ok = set(&p.count, v, "exact", "planned", "estimated", "none")
			case "resolution":
				ok = set(&p.resolution, v, "merge-duplicates", "ignore-duplicates")
			case "missing":
				ok = set(&p.missing, v, "default", "null")
			case "handling":
				ok = set(&p.handling, v, "strict", "lenient")
			case "tx":
				ok = v == "commit" || v == "rollback"
			case "timezone":
				p.timezone, ok = v, true
			case "max-affected":
				if n, isInt := integer(v); isInt && n >= 0 {
					p.maxAffected, ok = n, true
				}
			}
			if !ok {
				invalid = append(invalid, part)
			}
		}
	}
	if p.handling == "strict" && len(invalid) > 0 {
		return p, fail(http.StatusBadRequest, "PGRST122", "Invalid preferences given with handling=strict").
			details("Invalid preferences: " + strings.Join(invalid, ", "))
	}
	if p.handling != "strict" {
		p.maxAffected = -1
	}
	return p, nil
}

// parseAccept chooses the representation: by q, then order.
func parseAccept(h http.Header) (media, error) {
	accept := strings.Join(h.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return media{}, nil
	}
	type offer struct {
		m media
		q float64
	}
	var best *offer
	for part := range strings.SplitSeq(accept, ",") {
		typ, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			typ, _, _ = strings.Cut(strings.TrimSpace(part), ";")
		}
		o := offer{q: 1}
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil {
			o.q = q
		}
		switch strings.TrimSpace(typ) {
		case "*/*", "application/*", "application/json", "application/vnd.pgrst.array+json", "application/vnd.pgrst.array":
		case "application/vnd.pgrst.object+json", "application/vnd.pgrst.object":
			o.m.single = true
		case "text/csv":
			o.m.csv = true
		default:
			continue
		}
		o.m.stripped = params["nulls"] == "stripped"
		if best == nil || o.q > best.q {
			best = &o
		}
	}
	if best == nil {
		return media{}, fail(http.StatusNotAcceptable, "PGRST107", "None of these media types are available: "+accept)
	}
	return best.m, nil
}

// payload is a JSON body: its text for PostgreSQL, and its keys.
type payload struct {
	text  []byte
	array bool
	rows  int
	keys  []string // of the first object
	same  bool     // all objects have the same keys
	any   []string // keys of all objects
}

// readPayload parses a body of one object or an array of objects.
func readPayload(text []byte) (payload, error) {
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

// readBody reads a bounded body.
func (s *Server) readBody(h *http.Request) ([]byte, error) {
	if h.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, h.Body, s.cfg.BodyLimit))
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return body, nil
}
