package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/sluice-dev/sluice"
)

// asRefusal turns any error of the slow part of a join into what the client is
// told. The client tries again by itself, so that everything but a clear no is
// "not yet".
func asRefusal(err error) *sluice.Refusal {
	var r *sluice.Refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, sluice.ErrTimeout), errors.Is(err, context.Canceled):
		return sluice.Refuse(sluice.CodeInitializing).WithCause(err)
	case errors.Is(err, sluice.ErrUnavailable):
		return sluice.Refuse(sluice.CodeUnableToConnect).WithCause(err)
	case errors.Is(err, sluice.ErrForbidden), errors.Is(err, sluice.ErrUnauthorized):
		return sluice.Refuse(sluice.CodeUnauthorized).WithCause(err)
	}
	return sluice.Refuse(sluice.CodeInternal).WithCause(err)
}

// reason is the text of a refused join.
func (s *Server) reason(r *sluice.Refusal) string {
	if s.cfg.Explain {
		return r.Explain()
	}
	return r.Error()
}

// refuseHTTP answers a refused handshake: JSON with the original's key "error",
// and the headers that name who refused and why.
func (s *Server) refuseHTTP(w http.ResponseWriter, req *http.Request, r *sluice.Refusal) {
	s.metrics.Refused.Add(1)
	id, _ := sluice.IdentityFrom(req.Context())
	s.log.Info("request refused", sluice.LogRequest, id.RequestID, sluice.LogCode, r.Code, "text", r.Text, sluice.LogError, r.Cause)
	setRefused(w, r.Code)
	writeJSON(w, r.Status, map[string]string{"error": r.Text, "code": string(r.Code), "remedy": r.Remedy})
}

func setRefused(w http.ResponseWriter, code sluice.Code) {
	w.Header().Set(sluice.HeaderRefusedBy, "realtime")
	w.Header().Set(sluice.HeaderCode, string(code))
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil { // only strings and slices come here
		status, b = http.StatusInternalServerError, []byte(`{"message":"Internal Server Error"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// httpAnswer is a status and the text of its message.
type httpAnswer struct {
	status int
	text   string
}

// broadcastRefusal is the original's answer to a single private broadcast that
// may not be sent, or about which nothing could be found out.
func broadcastRefusal(code sluice.Code) httpAnswer {
	switch code {
	case sluice.CodeUnauthorized:
		return httpAnswer{http.StatusForbidden, "Unauthorized"}
	case sluice.CodePolicyError:
		return httpAnswer{http.StatusUnprocessableEntity, "RLS policy error"}
	case sluice.CodeQueryCanceled:
		return httpAnswer{http.StatusUnprocessableEntity, "Query canceled"}
	case sluice.CodeMissingPartition:
		return httpAnswer{http.StatusUnprocessableEntity, "Missing messages partition"}
	case sluice.CodeUnableToConnect:
		return httpAnswer{http.StatusUnprocessableEntity, "Tenant database unavailable"}
	case sluice.CodeInitializing:
		return httpAnswer{http.StatusUnprocessableEntity, "Tenant database initializing"}
	case sluice.CodeLackOfConnections:
		return httpAnswer{http.StatusUnprocessableEntity, "Tenant database has too many connections"}
	case sluice.CodePoolExhausted:
		return httpAnswer{http.StatusTooManyRequests, "Connection pool exhausted"}
	}
	return httpAnswer{http.StatusInternalServerError, "Unable to authorize broadcast"}
}
