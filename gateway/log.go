package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
)

// secretParams are query parameters whose values never reach a log.
var secretParams = map[string]bool{
	"apikey": true, "access_token": true, "refresh_token": true, "id_token": true, "token": true, "token_hash": true, "code": true,
	"provider_token": true, "provider_refresh_token": true, "key": true, "api_key": true, "password": true, "auth_code": true,
	"code_verifier": true, "client_secret": true, "anon_key": true, "publishable_key": true,
}

// redactURL returns path and query without secrets.
func redactURL(u *url.URL) string {
	if u.RawQuery == "" {
		return u.EscapedPath()
	}
	parts := strings.Split(u.RawQuery, "&")
	for i, p := range parts {
		name, value, _ := strings.Cut(p, "=")
		plain, err := url.QueryUnescape(name)
		if err != nil || secretParams[strings.ToLower(plain)] {
			parts[i] = name + "=" + sluice.RedactKey(value)
		} else if v, err := url.QueryUnescape(value); err != nil || looksLikeKey(v) {
			parts[i] = name + "=" + sluice.RedactKey(v)
		}
	}
	return u.EscapedPath() + "?" + strings.Join(parts, "&")
}

// logAccess writes one line for a request. Refusals are warnings: a person who
// looks at the terminal should see them.
func (s *Server) logAccess(rec *recorder, r *http.Request) {
	level, what := slog.LevelInfo, "request"
	if code := rec.Header().Get(sluice.HeaderCode); rec.refused == "" && code != "" {
		rec.refused = sluice.Code(code)
	}
	if rec.refused != "" {
		level = slog.LevelWarn
	}
	if rec.hijacked {
		what = "ws upgrade"
	}
	ctx := context.WithoutCancel(r.Context())
	if !s.log.Enabled(ctx, level) {
		return
	}
	id := rec.identity
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("path", redactURL(r.URL)), slog.Int("status", rec.status),
	}
	if id.Key != "" {
		kind := string(id.Key)
		if id.KeyPlace != "" {
			kind += "(" + id.KeyPlace + ")"
		}
		attrs = append(attrs, slog.String(sluice.LogKeyKind, kind), slog.String(sluice.LogRole, id.Claims.Role))
	}
	if rec.refused != "" {
		attrs = append(attrs, slog.String(sluice.LogCode, string(rec.refused)))
	}
	if !rec.hijacked {
		attrs = append(attrs, slog.Int64("bytes", rec.bytes), slog.Duration("took", time.Since(rec.start).Round(time.Microsecond)))
	}
	if n := len(r.Header.Get("Cookie")); n > largeCookie {
		attrs = append(attrs, slog.Int("cookie_bytes", n))
	}
	attrs = append(attrs, slog.String(sluice.LogRequest, rec.id))
	s.log.LogAttrs(ctx, level, what, attrs...)
}
