package gateway

import (
	"net/http"
	"slices"
	"strings"
)

// exposed lists what browsers may read of a response: PostgREST's list, what
// auth-js needs, and our own. Without X-Supabase-Api-Version every error of
// Auth loses its code in a browser; without Content-Range a count is lost.
const exposed = "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, Transfer-Encoding, Range-Unit, " +
	"Content-Profile, Preference-Applied, Proxy-Status, Retry-After, WWW-Authenticate, " +
	"X-Total-Count, Link, X-Supabase-Api-Version, X-Sb-Error-Code, X-Request-Id, " +
	"X-Sluice-Refused-By, X-Sluice-Code"

// allowed returns the origin whose pages may read the answer: any, "*", unless there
// is a list, which answers one that is on it by its own name and others by "" (spec
// rest 1.11).
func (s *Server) allowed(r *http.Request) string {
	origin := r.Header.Get("Origin")
	switch {
	case len(s.cfg.Origins) == 0:
		return "*"
	case slices.ContainsFunc(s.cfg.Origins, func(o string) bool { return strings.EqualFold(o, origin) }):
		return origin
	}
	return ""
}

// setCORS puts the headers on every answer, refusals and unknown paths too: a
// browser shows an error without them as a CORS error. supabase-js never uses
// credentials mode, so that any origin is right.
func setCORS(h http.Header, origin string) {
	if origin != "*" && !slices.Contains(h.Values("Vary"), "Origin") {
		h.Add("Vary", "Origin")
	}
	if origin == "" {
		h.Del("Access-Control-Allow-Origin")
		h.Del("Access-Control-Allow-Credentials")
		h.Del("Access-Control-Expose-Headers")
		return
	}
	if origin != "*" {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", exposed)
}

func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// preflight answers as Kong's cors plugin does (spec gateway A.5), with a max
// age: it saves a round trip for every call. The headers asked for are echoed,
// because clients add new ones with every release.
func preflight(rec *recorder, r *http.Request) {
	h := rec.Header()
	h.Del("Access-Control-Expose-Headers")
	if rec.origin != "" {
		h.Set("Access-Control-Allow-Methods", "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT")
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			h.Set("Access-Control-Allow-Headers", asked)
		}
		h.Set("Access-Control-Max-Age", "86400") // PostgREST's; browsers take less
	}
	h.Set("Content-Length", "0")
	rec.status = http.StatusOK
	rec.ResponseWriter.WriteHeader(http.StatusOK)
}
