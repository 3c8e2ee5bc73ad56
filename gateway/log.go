package gateway

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
)

// secretParams are query parameters whose values never reach a log.
var secretParams = map[string]bool{
	"apikey": true, "access_token": true, "refresh_token": true, "id_token": true, "token": true, "token_hash": true, "code": true,
	"provider_token": true, "provider_refresh_token": true, "key": true, "api_key": true, "api-key": true, "x-api-key": true,
	"password": true, "auth_code": true, "code_verifier": true, "client_secret": true, "anon_key": true, "publishable_key": true,
	"secret": true, "jwt": true, "authorization": true, "nonce": true, "invite_token": true, "state": true,
}

// secretInside finds a key, a token or a secret parameter within a longer text,
// such as the fragment of an address in redirect_to.
var secretInside = regexp.MustCompile(`sb_[a-z]+_|\bey[A-Z][A-Za-z0-9_-]{6,}\.|(?i:\bbearer\b)|://[^/?#]*@|(?:^|[?&#/])(?i:` + strings.Join([]string{
	"apikey", "access_token", "refresh_token", "id_token", "token", "token_hash", "code", "provider_token", "provider_refresh_token",
	"password", "client_secret", "code_verifier",
}, "|") + `)=`)

// maxLogged bounds the logged URL in bytes.
const maxLogged = 2048

// redactURL returns path and query without secrets.
func redactURL(u *url.URL) string {
	path := u.EscapedPath()
	if hasSecret(path) {
		parts := strings.Split(path, "/")
		for i, p := range parts {
			if hasSecret(p) {
				parts[i] = shorten(p)
			}
		}
		path = strings.Join(parts, "/")
	}
	if u.RawQuery != "" {
		path += "?" + redactQuery(u.RawQuery)
	}
	if len(path) > maxLogged {
		path = path[:maxLogged] + "…"
	}
	return path
}

func redactQuery(query string) string {
	parts := strings.Split(query, "&")
	for i, p := range parts {
		name, value, has := strings.Cut(p, "=")
		plain, err := url.QueryUnescape(name)
		switch {
		case err != nil || hasSecret(name):
			parts[i] = shorten(name) + "=…"
		case has && (secretParams[strings.ToLower(strings.TrimSpace(plain))] || hasSecret(value)):
			parts[i] = name + "=" + shorten(value)
		}
	}
	return strings.Join(parts, "&")
}

// hasSecret looks through two layers of escapes: an address inside an address.
// Most of what a request carries is told apart without the expression.
func hasSecret(s string) bool {
	for depth := range 3 {
		if !strings.ContainsAny(s, "%+ =@") && !strings.Contains(s, "sb_") && !strings.Contains(s, "ey") {
			return false
		}
		if secretInside.MatchString(s) {
			return true
		}
		plain, err := url.QueryUnescape(s)
		if err != nil {
			return depth == 0 // what is no escape at all is not worth a guess
		}
		if plain == s {
			return false
		}
		s = plain
	}
	return false
}

// shorten shows the kind of a value and no more.
func shorten(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		s = plain
	}
	return sluice.RedactKey(strings.TrimSpace(s))
}

// logAccess writes one line for a request. Refusals are warnings: a person who
// looks at the terminal should see them.
func (s *Server) logAccess(rec *recorder, r *http.Request) {
	level, what := slog.LevelInfo, "request"
	if code := rec.Header().Get(sluice.HeaderCode); rec.refused == "" && code != "" {
		rec.refused = sluice.Code(code)
	}
	switch {
	case rec.refused != "":
		level = slog.LevelWarn
	case r.Method == http.MethodOptions:
		level = slog.LevelDebug
	}
	switch {
	case rec.hijacked:
		what = "ws upgrade"
	case rec.status == 0:
		rec.status = http.StatusOK // net/http's, when a handler writes nothing
	}
	ctx := context.WithoutCancel(r.Context())
	if !s.log.Enabled(ctx, level) {
		return
	}
	id := rec.identity
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.String("method", r.Method), slog.String("path", redactURL(r.URL)), slog.Int("status", rec.status))
	if id.Key != "" {
		kind := string(id.Key)
		if id.KeyPlace != "" {
			kind += "(" + id.KeyPlace + ")"
		}
		attrs = append(attrs, slog.String(sluice.LogKeyKind, kind))
		if !id.Claims.IsZero() {
			attrs = append(attrs, slog.String(sluice.LogRole, id.Claims.Role))
		} else if rec.shown != "" {
			attrs = append(attrs, slog.String("shown", rec.shown))
		}
	}
	if rec.refused != "" {
		attrs = append(attrs, slog.String(sluice.LogCode, string(rec.refused)))
	}
	if !rec.hijacked {
		attrs = append(attrs, slog.Int64("bytes", rec.bytes), slog.Duration("took", time.Since(rec.start).Round(time.Microsecond)))
	}
	attrs = append(attrs, slog.String(sluice.LogRequest, rec.id))
	s.log.LogAttrs(ctx, level, what, attrs...)
}

// Cookies of localhost go to every port, so headers need room (maxHeaderBytes);
// other servers refuse such requests, which is worth a word once in a while.
const (
	largeCookie  = 8 << 10
	cookieRhythm = time.Minute
)

func (s *Server) warnCookies(rec *recorder, r *http.Request) {
	size := 0
	for _, c := range r.Header.Values("Cookie") {
		size += len(c)
	}
	if size <= largeCookie {
		return
	}
	last, now := s.cookieWarned.Load(), rec.start.UnixNano()
	if last != 0 && now-last < int64(cookieRhythm) || !s.cookieWarned.CompareAndSwap(last, now) {
		return
	}
	s.log.Warn("a request carries more than 8 KB of cookies; servers with smaller limits refuse it with 431",
		"cookie_bytes", size, sluice.LogRequest, rec.id)
}

// requestID takes over a sane id from outside, so that logs of several hops
// agree, or makes one. The service finds it in the request's header.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if !saneID(id) {
		var b [12]byte
		_, _ = rand.Read(b[:]) // never fails
		id = base64.RawURLEncoding.EncodeToString(b[:])
	}
	r.Header.Set("X-Request-Id", id)
	return id
}

func saneID(s string) bool {
	if len(s) < 8 || len(s) > 64 || looksLikeKey(s) {
		return false
	}
	for _, c := range []byte(s) {
		if !(c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return false
		}
	}
	return true
}
