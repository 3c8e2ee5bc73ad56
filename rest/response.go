package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/schema"
)

// counts is the one row that every query returns, without the controls.
type counts struct {
	total, page int64
	body        []byte
	inserted    int64 // of an upsert
}

func readCounts(res pg.Result) (counts, error) {
	var c counts
	if len(res.Rows) != 1 || len(res.Rows[0]) < 3 {
		return c, fmt.Errorf("statement returned %d rows", len(res.Rows))
	}
	row := res.Rows[0]
	var err1, err2 error
	c.total, err1 = strconv.ParseInt(string(row[0]), 10, 64)
	c.page, err2 = strconv.ParseInt(string(row[1]), 10, 64)
	if err1 != nil || err2 != nil {
		return c, fmt.Errorf("statement returned the counts %q and %q", row[0], row[1])
	}
	c.body = row[len(row)-1]
	return c, nil
}

// answer is a successful response.
type answer struct {
	status      int
	contentType string // empty: no body
	body        []byte
	length      bool // Content-Length: 0 although there is no body
	rng         string
	location    string
	applied     []string
	allow       string
	profile     string
	warning     string
	reads       bool
	extra       http.Header
}

// base fills in what all answers share.
func (s *Server) base(r *request) *answer {
	a := &answer{reads: r.reads()}
	if len(r.byTarget) > 0 {
		a.warning = legacyWarning
	}
	if len(s.cfg.Schemas) > 1 {
		a.profile = r.schema
	}
	return a
}

// apply notes the preferences that were honoured, in PostgREST's order.
func (a *answer) apply(r *request, names ...string) {
	values := map[string]string{
		"resolution": r.prefer.resolution, "missing": r.prefer.missing, "return": r.prefer.ret, "count": r.prefer.count,
		"tx": r.prefer.tx, "handling": r.prefer.handling, "timezone": r.prefer.timezone,
	}
	for _, n := range []string{"resolution", "missing", "return", "count", "tx", "handling", "timezone"} {
		if v := values[n]; v != "" && v != "none" && (n == "tx" || slices.Contains(names, n)) {
			a.applied = append(a.applied, n+"="+v)
		}
	}
	if r.prefer.maxAffected >= 0 && slices.Contains(names, "max-affected") {
		a.applied = append(a.applied, "max-affected="+itoa(r.prefer.maxAffected))
	}
}

func total(r *request, n int64) string {
	if r.prefer.counts() {
		return itoa(n)
	}
	return "*"
}

// pageRange is Content-Range and the status that goes with it.
func pageRange(r *request, c counts) (rng string, status int, err error) {
	if c.page == 0 {
		if r.offset > 0 && r.prefer.count == "exact" && r.offset >= c.total {
			e := rangeError(fmt.Sprintf("An offset of %d was requested, but there are only %d rows.", r.offset, c.total))
			e.contentRange = "*/" + itoa(c.total)
			return "", 0, e
		}
		return "*/" + total(r, c.total), http.StatusOK, nil
	}
	status = http.StatusOK
	if r.prefer.counts() && c.page < c.total {
		status = http.StatusPartialContent
	}
	return fmt.Sprintf("%d-%d/%s", r.offset, r.offset+c.page-1, total(r, c.total)), status, nil
}

func (s *Server) readAnswer(r *request, c counts) (*answer, error) {
	a := s.base(r)
	var err error
	if a.rng, a.status, err = pageRange(r, c); err != nil {
		return nil, err
	}
	if r.media.single {
		if err := single(c.page); err != nil {
			return nil, err
		}
	}
	a.contentType, a.body = r.media.contentType(), c.body
	a.apply(r, "count", "handling", "timezone")
	return a, nil
}

// insertAnswer answers a POST on a relation.
func (s *Server) insertAnswer(rel *schema.Relation) func(*request, counts) (*answer, error) {
	return func(r *request, c counts) (*answer, error) {
		a := s.base(r)
		a.status, a.rng, a.length = http.StatusCreated, "*/"+total(r, c.total), true
		if r.prefer.resolution == "merge-duplicates" && c.inserted == 0 {
			a.status = http.StatusOK
		}
		switch r.prefer.ret {
		case "representation":
			a.contentType, a.body, a.length = r.media.contentType(), c.body, false
		case "headers-only":
			a.location = location(rel, c)
		}
		a.apply(r, "resolution", "missing", "return", "count", "handling", "timezone")
		return a, nil
	}
}

// location names the one row that was inserted by its key.
func location(rel *schema.Relation, c counts) string {
	var row map[string]any
	if c.total != 1 || len(rel.PrimaryKey) == 0 || json.Unmarshal(c.body, &row) != nil {
		return ""
	}
	var parts []string
	for _, k := range rel.PrimaryKey {
		if row[k] == nil {
			parts = append(parts, escapeQuery(k)+"=is.null")
			continue
		}
		raw, _ := json.Marshal(row[k]) // it came from JSON
		v := strings.Trim(string(raw), `"`)
		if str, ok := row[k].(string); ok {
			v = str
		}
		parts = append(parts, escapeQuery(k)+"=eq."+escapeQuery(v))
	}
	return "/" + url.PathEscape(rel.Name) + "?" + strings.Join(parts, "&")
}

// escapeQuery is url.QueryEscape with blanks as %20.
func escapeQuery(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// putAnswer answers a PUT.
func (s *Server) putAnswer(r *request, c counts) (*answer, error) {
	a := s.base(r)
	a.status = http.StatusNoContent
	if r.prefer.ret == "representation" {
		a.status, a.contentType, a.body = http.StatusOK, r.media.contentType(), c.body
		if c.inserted > 0 {
			a.status = http.StatusCreated
		}
	}
	a.apply(r, "missing", "return", "count", "handling", "timezone")
	return a, nil
}

func (s *Server) updateAnswer(r *request, c counts) (*answer, error) {
	a := s.base(r)
	a.status, a.rng = http.StatusNoContent, "*/"+total(r, c.total)
	if c.total > 0 {
		a.rng = fmt.Sprintf("0-%d/%s", c.total-1, total(r, c.total))
	}
	if r.prefer.ret == "representation" {
		a.status, a.contentType, a.body = http.StatusOK, r.media.contentType(), c.body
	}
	a.apply(r, "missing", "return", "count", "handling", "timezone", "max-affected")
	return a, nil
}

func (s *Server) deleteAnswer(r *request, c counts) (*answer, error) {
	a := s.base(r)
	a.status, a.rng = http.StatusNoContent, "*/"+total(r, c.total)
	if r.prefer.ret == "representation" {
		a.status, a.contentType, a.body = http.StatusOK, r.media.contentType(), c.body
	}
	a.apply(r, "return", "count", "handling", "timezone", "max-affected")
	return a, nil
}

// callAnswer answers a function.
func (s *Server) callAnswer(f *schema.Function) func(*request, counts) (*answer, error) {
	return func(r *request, c counts) (*answer, error) {
		a := s.base(r)
		a.apply(r, "count", "handling", "timezone", "max-affected")
		if f.ReturnsVoid {
			a.status = http.StatusNoContent
			return a, nil
		}
		var err error
		if a.rng, a.status, err = pageRange(r, c); err != nil {
			return nil, err
		}
		if r.method == http.MethodPost && r.prefer.ret == "minimal" {
			a.length = true
			return a, nil
		}
		m := r.media
		if !f.ReturnsRow || f.Anonymous {
			m = media{single: r.media.single} // one value, or an array of them
		}
		a.contentType, a.body = m.contentType(), c.body
		return a, nil
	}
}

// planAnswer answers with the plan of the query.
func (s *Server) planAnswer(r *request, res pg.Result) *answer {
	a := s.base(r)
	a.status, a.contentType = http.StatusOK, r.media.contentType()
	lines := make([][]byte, len(res.Rows))
	for i, row := range res.Rows {
		lines[i] = row[0]
	}
	a.body = bytes.Join(lines, []byte("\n"))
	a.apply(r)
	return a
}

// override applies response.status and response.headers, which SQL may have set.
// Behind a write, lateControls has refused what is refused here.
func (a *answer) override(controls [][]byte) error {
	status, headers := controls[0], controls[1]
	if status != nil {
		n, ok := integer(string(status))
		if !ok || n < 200 || n > 599 {
			return badControl("PGRST112")
		}
		a.status = int(n)
	}
	if headers == nil {
		return nil
	}
	bad := badControl("PGRST111")
	var list []map[string]string
	if json.Unmarshal(headers, &list) != nil {
		return bad
	}
	a.extra = http.Header{}
	for _, o := range list {
		if len(o) != 1 {
			return bad
		}
		if !headersAllowed(o) {
			return bad
		}
		for k, v := range o {
			a.extra.Add(k, v)
		}
	}
	return nil
}

// badControl is the error of a status (PGRST112) or headers (PGRST111) that cannot
// be answered with.
func badControl(code string) *Error {
	text := "response.status guc must be a valid status code"
	if code == "PGRST111" {
		text = "response.headers guc must be a JSON array composed of objects with a single key and a string value"
	}
	return fail(http.StatusInternalServerError, code, text)
}

// forbiddenHeaders are the server's own.
var forbiddenHeaders = map[string]bool{"Content-Length": true, "Transfer-Encoding": true, "Connection": true, "Upgrade": true, "Trailer": true}

// headersAllowed reports whether SQL may set these headers.
func headersAllowed(headers map[string]string) bool {
	for k, v := range headers {
		if !isToken(k) || strings.ContainsAny(v, "\r\n\x00") || forbiddenHeaders[http.CanonicalHeaderKey(k)] {
			return false
		}
	}
	return true
}

func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// hasBody reports whether a body follows the head.
func (a *answer) hasBody(h *http.Request) bool {
	return a.contentType != "" && h.Method != http.MethodHead && a.status != http.StatusNoContent
}

// head writes everything but the body, of size bytes.
func (a *answer) head(w http.ResponseWriter, h *http.Request, size int64) {
	hd := w.Header()
	set := func(k, v string) {
		if v != "" {
			hd.Set(k, v)
		}
	}
	set("Content-Range", a.rng)
	set("Content-Profile", a.profile)
	set("Warning", a.warning)
	set("Location", a.location)
	set("Allow", a.allow)
	set("Preference-Applied", strings.Join(a.applied, ", "))
	set("Content-Type", a.contentType)
	if a.reads {
		set("Content-Location", contentLocation(h.URL))
		hd.Set("Vary", "Accept, Prefer, Range")
	}
	for k, v := range a.extra {
		hd[k] = v
	}
	switch {
	case a.hasBody(h):
		hd.Set("Content-Length", itoa(size))
	case a.length:
		hd.Set("Content-Length", "0")
	}
	w.WriteHeader(a.status)
}

func (a *answer) write(w http.ResponseWriter, h *http.Request) {
	a.head(w, h, int64(len(a.body)))
	if a.hasBody(h) {
		_, _ = w.Write(a.body) // a client that is gone needs no answer
	}
}

// contentLocation is the path with its parameters sorted by name.
func contentLocation(u *url.URL) string {
	if u.RawQuery == "" {
		return u.EscapedPath()
	}
	q := u.Query()
	q.Del("apikey")
	if len(q) == 0 {
		return u.EscapedPath()
	}
	return u.EscapedPath() + "?" + q.Encode()
}
