package rest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// media is the representation that is answered.
type media struct {
	single   bool
	stripped bool
	csv      bool
	geo      bool // GeoJSON, by PostGIS
	// plan is set when not the result is wanted but how it is computed.
	plan   *planMedia
	accept string // the whole header
}

// planMedia are the parameters of application/vnd.pgrst.plan.
type planMedia struct {
	json    bool
	options []string // in the order of planOptions
}

var planOptions = []string{"analyze", "verbose", "settings", "buffers", "wal"}

var explainOption = map[string]fragment{"analyze": "ANALYZE, ", "verbose": "VERBOSE, ", "settings": "SETTINGS, ", "buffers": "BUFFERS, ", "wal": "WAL, "}

// explained is the query behind EXPLAIN.
func (b *builder) explained(m *planMedia) *builder {
	out := &builder{args: b.args}
	out.lit("EXPLAIN (")
	for _, o := range m.options {
		out.lit(explainOption[o])
	}
	if m.json {
		out.lit("FORMAT JSON) ")
	} else {
		out.lit("FORMAT TEXT) ")
	}
	out.sql.WriteString(b.sql.String())
	return out
}

func (m media) contentType() string {
	base := "application/json"
	switch {
	case m.csv:
		base = "text/csv"
	case m.geo:
		base = "application/geo+json"
	case m.single && m.stripped:
		base = "application/vnd.pgrst.object+json;nulls=stripped"
	case m.single:
		base = "application/vnd.pgrst.object+json"
	case m.stripped:
		base = "application/vnd.pgrst.array+json;nulls=stripped"
	}
	if m.plan == nil {
		return base + "; charset=utf-8"
	}
	out := `application/vnd.pgrst.plan+text; for="` + base + `"`
	if m.plan.json {
		out = `application/vnd.pgrst.plan+json; for="` + base + `"`
	}
	if len(m.plan.options) > 0 {
		out += "; options=" + strings.Join(m.plan.options, "|")
	}
	return out + "; charset=utf-8"
}

// parseAccept chooses the representation: by q, then order. root: of the
// description of the schema.
func parseAccept(h http.Header, root bool) (media, error) {
	accept := strings.Join(h.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return media{}, nil
	}
	best, bestQ, found := media{}, 0.0, false
	for part := range strings.SplitSeq(accept, ",") {
		typ, params := parseMediaType(part)
		m, ok := mediaOf(typ, params, root)
		q := 1.0
		if v, err := strconv.ParseFloat(params["q"], 64); err == nil {
			q = v
		}
		if ok && (!found || q > bestQ) {
			best, bestQ, found = m, q, true
		}
	}
	if !found {
		return media{}, noMedia(accept)
	}
	best.accept = accept
	return best, nil
}

func noMedia(accept string) *Error {
	return fail(http.StatusNotAcceptable, "PGRST107", "None of these media types are available: "+accept)
}

// parseMediaType splits a type from its parameters, whose values may be empty or
// quoted.
func parseMediaType(s string) (typ string, params map[string]string) {
	typ, rest, _ := strings.Cut(s, ";")
	params = map[string]string{}
	for p := range strings.SplitSeq(rest, ";") {
		if k, v, ok := strings.Cut(p, "="); ok {
			params[strings.ToLower(strings.TrimSpace(k))] = strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return strings.ToLower(strings.TrimSpace(typ)), params
}

// mediaOf returns what is answered for one media type.
func mediaOf(typ string, params map[string]string, root bool) (m media, ok bool) {
	switch typ {
	case "*/*", "application/*", "application/json":
	case "application/vnd.pgrst.array+json", "application/vnd.pgrst.array":
		m.stripped = params["nulls"] == "stripped"
	case "application/vnd.pgrst.object+json", "application/vnd.pgrst.object":
		m.single, m.stripped = true, params["nulls"] == "stripped"
	case "text/csv":
		m.csv = true
	case "application/geo+json":
		m.geo = true
	case "application/openapi+json":
		return m, root
	case "application/vnd.pgrst.plan", "application/vnd.pgrst.plan+text", "application/vnd.pgrst.plan+json":
		if target := params["for"]; target != "" {
			t, p := parseMediaType(target)
			if m, ok = mediaOf(t, p, false); !ok || m.plan != nil {
				return m, false
			}
		}
		m.plan = &planMedia{json: strings.HasSuffix(typ, "+json")}
		given := strings.Split(params["options"], "|")
		for _, o := range planOptions {
			if slices.Contains(given, o) {
				m.plan.options = append(m.plan.options, o)
			}
		}
	default:
		return m, false
	}
	return m, true
}
