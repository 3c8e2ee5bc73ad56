package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// request is what a client asked for, before anything is looked up.
type request struct {
	method   string
	path     string // as SQL sees it: /messages, /rpc/f
	function bool
	target   string // relation or function
	schema   string

	node
	columns    []string // nil: not given
	onConflict []string
	args       []argument // pairs of a GET on a function
	bodyType   string     // the body's media type, without parameters
	prefer     prefer
	media      media
	body       []byte
	// byTarget are embedded resources with an alias that a key of the query
	// string addresses by the target's name all the same.
	byTarget []*node
}

// argument is a pair of a GET on a function. One whose value reads as a filter
// is a filter of the result, too, until it is known what the function returns.
type argument struct {
	name, value string
	filter      bool
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
		r.target = parts[0]
	case len(parts) == 2 && parts[0] == "rpc" && parts[1] != "":
		r.function, r.target = true, parts[1]
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
	r.bodyType, _, _ = strings.Cut(h.Header.Get("Content-Type"), ";")
	r.bodyType = strings.ToLower(strings.TrimSpace(r.bodyType))
	if r.method == http.MethodGet {
		if err := r.parseRange(h.Header.Get("Range")); err != nil {
			return nil, err
		}
	}
	r.media, err = parseAccept(h.Header, r.target == "")
	return r, err
}

func (r *request) checkMethod() error {
	switch r.method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions:
		if r.target == "" && r.method == http.MethodPost {
			return fail(http.StatusMethodNotAllowed, "PGRST117", "Unsupported HTTP method: "+r.method)
		}
		return nil
	case http.MethodPatch, http.MethodDelete, http.MethodPut:
		if r.function {
			return fail(http.StatusMethodNotAllowed, "PGRST101", "Cannot use the "+r.method+" method on RPC")
		}
		if r.target != "" {
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
