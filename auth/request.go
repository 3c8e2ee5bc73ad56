package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluice-dev/sluice"
)

const (
	// maxBody bounds a request body.
	maxBody = 1 << 20
	// maxMetadata bounds user_metadata and app_metadata, which every access
	// token carries in a header of every request.
	maxMetadata = 64 << 10
	// maxMetadataDepth bounds nesting; PostgreSQL's own limit is a stack overflow.
	maxMetadataDepth = 64
)

// readBody decodes the request body into v. A field that is null is as if it
// were absent; unknown fields are ignored, and so is the Content-Type.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	text, err := bodyText(w, r)
	if err != nil {
		return err
	}
	return decode(text, v)
}

// readOptionalBody is readBody for requests that may come without a body.
func readOptionalBody(w http.ResponseWriter, r *http.Request, v any) error {
	text, err := bodyText(w, r)
	if err != nil || len(text) == 0 {
		return err
	}
	return decode(text, v)
}

func bodyText(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errBodyTooLarge
	case err != nil:
		return nil, errBadBody.with("the body could not be read").because(err)
	}
	return text, nil
}

func decode(text []byte, v any) error {
	if !utf8.Valid(text) {
		return errBadBody.with("it is not UTF-8")
	}
	if err := json.Unmarshal(text, v); err != nil {
		var known *apiError
		if errors.As(err, &known) {
			return known
		}
		return errBadBody.with(err.Error())
	}
	if hasNUL(text) {
		return errBadBody.with("PostgreSQL stores no text with \\u0000")
	}
	return nil
}

// hasNUL finds the escape of the character that PostgreSQL cannot store. It
// reads valid JSON alone, where a backslash stands in strings only.
func hasNUL(text []byte) bool {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return false
		}
		text = text[i+1:]
		if bytes.HasPrefix(text, []byte("u0000")) {
			return true
		}
		text = text[1:]
	}
}

// metadata is a JSON object that users or admins keep with a user.
type metadata map[string]json.RawMessage

// UnmarshalJSON takes an object within the bounds. It writes values anew, so that
// what PostgreSQL refuses (lone surrogates) is gone.
func (m *metadata) UnmarshalJSON(text []byte) error {
	if len(text) > maxMetadata {
		return errMetadata.with("it is too large")
	}
	if depth(text) > maxMetadataDepth {
		return errMetadata.with("it is nested too deeply")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil {
		return err
	}
	if object == nil {
		return nil
	}
	*m = make(metadata, len(object))
	for k, v := range object {
		if !numbersFit(v) {
			return errMetadata.with("it has a number out of range")
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		(*m)[k] = raw
	}
	return nil
}

// numbersFit reports whether every number in v is one that PostgreSQL and its
// clients can hold.
func numbersFit(v any) bool {
	switch v := v.(type) {
	case json.Number:
		_, err := v.Float64()
		return err == nil
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !numbersFit(e) })
	case map[string]any:
		for _, e := range v {
			if !numbersFit(e) {
				return false
			}
		}
	}
	return true
}

// storedMetadata reads a column. Whoever filled it by hand had no bounds to keep;
// what is no object counts as an empty one.
func storedMetadata(text []byte) metadata {
	var m map[string]json.RawMessage
	if json.Unmarshal(text, &m) != nil || m == nil {
		return metadata{}
	}
	return m
}

// depth returns how deeply arrays and objects of valid JSON are nested.
func depth(text []byte) (deepest int) {
	now, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// merge returns m with the keys of with; a null deletes a key.
func (m metadata) merge(with metadata) metadata {
	out := make(metadata, len(m)+len(with))
	for k, v := range m {
		out[k] = v
	}
	for k, v := range with {
		if string(v) == "null" {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

// set returns m with one key set.
func (m metadata) set(key string, value any) metadata {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings and booleans alone
	}
	return m.merge(metadata{key: text})
}

// values returns the object as templates read it.
func (m metadata) values() map[string]any {
	out := make(map[string]any, len(m))
	for k, raw := range m {
		var v any
		if json.Unmarshal(raw, &v) == nil {
			out[k] = v
		}
	}
	return out
}

// check refuses what would make the stored object too large.
func (m metadata) check() error {
	size := 2
	for k, v := range m {
		size += len(k) + len(v) + 4
	}
	if size > maxMetadata {
		return errMetadata.with("it is too large")
	}
	return nil
}

// json returns the object's text; an empty one for nil.
func (m metadata) json() []byte {
	if m == nil {
		return []byte("{}")
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // values were JSON when they came in
	}
	return text
}

// clientIP returns the address of the client: the last address of
// X-Forwarded-For that is no trusted proxy, when a trusted proxy sent it, else
// the peer's.
func (s *Server) clientIP(r *http.Request) netip.Addr {
	peer := peerOf(r)
	if !s.trusted(peer) {
		return peer
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		addr, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		peer = addr.Unmap().WithZone("")
		if !s.trusted(peer) {
			break
		}
	}
	return peer
}

func (s *Server) trusted(a netip.Addr) bool {
	for _, p := range s.cfg.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func peerOf(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.IPv4Unspecified()
	}
	return addr.Unmap().WithZone("")
}

// userAgent returns what a session remembers of its client.
func userAgent(r *http.Request) string {
	const keep = 512
	ua := strings.ToValidUTF8(r.UserAgent(), "")
	ua = strings.ReplaceAll(ua, "\x00", "")
	if len(ua) > keep {
		ua = strings.ToValidUTF8(ua[:keep], "")
	}
	return ua
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // the client may have gone
}

func levelOf(e *apiError) slog.Level {
	if errors.Is(e.cause, sluice.ErrUnavailable) {
		return slog.LevelWarn
	}
	return slog.LevelError
}

func logString(key, value string) slog.Attr { return slog.String(key, value) }

// logError is the private cause, or the public text where there is none.
func logError(e *apiError) slog.Attr {
	if e.cause != nil {
		return slog.Any(sluice.LogError, e.cause)
	}
	return slog.String(sluice.LogError, e.message)
}
