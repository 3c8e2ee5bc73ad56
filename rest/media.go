package rest

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

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

// parseAccept chooses the representation: by q, then order. root: of the
// description of the schema.
func parseAccept(h http.Header, root bool) (media, error) {
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
		case "application/openapi+json":
			if !root {
				continue
			}
		default:
			continue
		}
		o.m.stripped = params["nulls"] == "stripped" && strings.HasPrefix(typ, "application/vnd.pgrst.")
		if best == nil || o.q > best.q {
			best = &o
		}
	}
	if best == nil {
		return media{}, fail(http.StatusNotAcceptable, "PGRST107", "None of these media types are available: "+accept)
	}
	return best.m, nil
}
