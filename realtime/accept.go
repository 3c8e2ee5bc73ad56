package realtime

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

const opText = ws.OpText

// accept answers GET /websocket: it reads vsn, checks the limits, takes the
// socket over from net/http and returns, so that nothing of the request stays
// in memory. The socket's own goroutine is waited for by Run.
func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	vsn, err := phoenix.ParseVersion(r.URL.Query().Get("vsn"))
	if err != nil {
		// The original's answer has no body.
		s.metrics.Refused.Add(1)
		s.log.Info("handshake refused", sluice.LogCode, sluice.CodeUnsupportedVersion, sluice.LogError, err)
		setRefused(w, sluice.CodeUnsupportedVersion)
		w.WriteHeader(http.StatusForbidden)
		return
	}
	id, ok := sluice.IdentityFrom(r.Context())
	if !ok || id.KeyClaims.IsZero() && id.Refusal == nil {
		s.refuseHTTP(w, r, sluice.Refuse(sluice.CodeMissingAPIKey))
		return
	}
	if missing := missingUpgradeHeader(r); missing != "" {
		setRefused(w, sluice.CodeUpgradeRequired)
		http.Error(w, "'"+missing+"' header is missing or wrong: this URL is a WebSocket", http.StatusBadRequest)
		return
	}
	if refusal := s.reserve(); refusal != nil {
		s.refuseHTTP(w, r, refusal)
		return
	}
	nc, ahead, compressed, err := s.upgrade(w, r)
	if err != nil {
		s.log.Info("upgrade failed", sluice.LogRequest, id.RequestID, sluice.LogError, err)
		s.release()
		return
	}
	_ = nc.SetDeadline(time.Time{})
	c := newConn(s, nc, vsn, id, capturedHeaders(r.Header, "x-"))
	c.in.ahead, c.in.deflate = ahead, compressed
	s.register(c)
	s.log.Debug("socket opened", sluice.LogConn, c.id, "vsn", int(vsn), sluice.LogRequest, c.request, sluice.LogRole, c.key.Role)
	go s.serve(c) // ends with the socket; Run waits
}

// serve runs the reader of c, until c is idle or has ended.
func (s *Server) serve(c *conn) {
	if c.serve() {
		s.remove(c)
	}
}

// readAhead returns a copy of what net/http has read behind the handshake, so
// that its buffers can go.
func readAhead(rw *bufio.ReadWriter) []byte {
	n := rw.Reader.Buffered()
	if n == 0 {
		return nil
	}
	b, _ := rw.Reader.Peek(n) // n bytes are there
	return append([]byte(nil), b...)
}

// missingUpgradeHeader names the first header that keeps r from being a
// WebSocket handshake.
func missingUpgradeHeader(r *http.Request) string {
	switch {
	case !hasToken(r.Header, "Connection", "upgrade"):
		return "connection"
	case !hasToken(r.Header, "Upgrade", "websocket"):
		return "upgrade"
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return "sec-websocket-version"
	case len(r.Header.Get("Sec-WebSocket-Key")) != 24:
		return "sec-websocket-key"
	}
	return ""
}

func hasToken(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// Bounds of the headers that policies can read.
const (
	maxHeaders     = 32
	maxHeaderBytes = 8192
)

// capturedHeaders returns the headers whose names begin with prefix as a JSON
// object for the setting request.headers, nil when there are none. Keys, tokens
// and cookies are left out: a policy has the claims.
func capturedHeaders(h http.Header, prefix string) []byte {
	var kept map[string]string
	size := 0
	for name, values := range h {
		lower := strings.ToLower(name)
		switch {
		case !strings.HasPrefix(lower, prefix), len(values) == 0:
			continue
		case lower == "x-api-key", lower == "apikey", lower == "authorization", lower == "cookie":
			continue
		}
		size += len(lower) + len(values[0])
		if len(kept) == maxHeaders || size > maxHeaderBytes {
			break
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[lower] = values[0]
	}
	if kept == nil {
		return nil
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return nil
	}
	return b
}
