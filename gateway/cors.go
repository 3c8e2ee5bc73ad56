package gateway

import "net/http"

// exposed lists what browsers may read of a response: PostgREST's list, what
// auth-js needs, and our own. Without X-Supabase-Api-Version every error of
// Auth loses its code in a browser; without Content-Range a count is lost.
const exposed = "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, Transfer-Encoding, Range-Unit, " +
	"Content-Profile, Preference-Applied, Proxy-Status, Retry-After, WWW-Authenticate, " +
	"X-Total-Count, Link, X-Supabase-Api-Version, X-Sb-Error-Code, X-Request-Id, " +
	"X-Sluice-Refused-By, X-Sluice-Code"

// setCORS puts the headers on every answer, refusals and unknown paths too: a
// browser shows an error without them as a CORS error. supabase-js never uses
// credentials mode, so that any origin is right.
func setCORS(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
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
	h.Set("Access-Control-Allow-Methods", "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "86400") // PostgREST's; browsers take less
	h.Set("Content-Length", "0")
	rec.status = http.StatusOK
	rec.ResponseWriter.WriteHeader(http.StatusOK)
}
