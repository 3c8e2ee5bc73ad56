package inspect

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice"
)

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /me", s.serveMe)
	mux.HandleFunc("GET /view", s.serveView)
	mux.HandleFunc("GET /why", s.serveWhy)
	return mux
}

// ServeHTTP answers the paths behind /sluice/v1. /me is for everybody and tells who
// the gateway takes the request for; the others are for the secret key.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	id, ok := sluice.IdentityFrom(r.Context())
	switch {
	case !ok:
		refuse(w, sluice.Refuse(sluice.CodeInternal))
	case id.BearerErr != nil && r.URL.Path != "/me":
		refuse(w, id.BearerErr)
	case id.Claims.Role != "service_role" && r.URL.Path != "/me":
		refuse(w, sluice.Refuse(sluice.CodeUnauthorized).WithText("Only the project's secret key may look into the server").
			WithRemedy("Send the secret key as header apikey; `sluice status` prints it. Never put it into a page."))
	default:
		s.mux.ServeHTTP(w, r)
	}
}

// Me is who the gateway takes a request for.
type Me struct {
	Key      sluice.KeyKind      `json:"key"`
	KeyPlace string              `json:"key_place,omitempty"`
	Role     string              `json:"role"`
	Subject  string              `json:"sub,omitempty"`
	Session  string              `json:"session_id,omitempty"`
	Expires  string              `json:"expires,omitempty"` // RFC 3339
	Token    *sluice.RefusalView `json:"token_refused,omitempty"`
	// Channels are those of the token's user.
	Channels []sluice.ChannelView `json:"channels"`
}

func (s *Server) serveMe(w http.ResponseWriter, r *http.Request) {
	id, _ := sluice.IdentityFrom(r.Context())
	me := Me{
		Key: id.Key, KeyPlace: id.KeyPlace, Role: id.Claims.Role, Subject: id.Claims.Subject, Session: id.Claims.SessionID,
		Token: id.BearerErr.View(), Channels: []sluice.ChannelView{},
	}
	if !id.Claims.ExpiresAt.IsZero() {
		me.Expires = id.Claims.ExpiresAt.UTC().Format("2006-01-02T15:04:05Z")
	}
	if id.Claims.Subject != "" && id.BearerErr == nil {
		list, _ := s.cfg.Sockets(r.Context(), sluice.Only{Subject: id.Claims.Subject, Limit: defaultSockets})
		for _, v := range list {
			me.Channels = append(me.Channels, v.Channels...)
		}
	}
	answer(w, me)
}

func (s *Server) serveView(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	only := sluice.Only{Subject: q.Get("user")}
	for name, into := range map[string]func(int64){"conn": func(n int64) { only.Conn = n }, "limit": func(n int64) { only.Limit = int(min(n, maxSockets)) }} {
		if text := q.Get(name); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n <= 0 {
				refuse(w, badRequest("parameter "+name+" must be a positive number"))
				return
			}
			into(n)
		}
	}
	answer(w, s.View(r.Context(), only))
}

// maxSockets bounds what one answer lists.
const maxSockets = 5000

// serveWhy takes table, user, and the key as parameters key.COLUMN, or key alone.
func (s *Server) serveWhy(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	req := WhyRequest{Table: q.Get("table"), User: q.Get("user")}
	for name, values := range q {
		column, ok := "", name == "key"
		if rest, has := strings.CutPrefix(name, "key."); has {
			column, ok = rest, true
		}
		if ok {
			if req.Key == nil {
				req.Key = map[string]string{}
			}
			req.Key[column] = values[0]
		}
	}
	out, err := s.Why(r.Context(), req)
	switch {
	case errors.Is(err, sluice.ErrNotFound), errors.Is(err, sluice.ErrInvalid):
		refuse(w, badRequest(err.Error()))
	case err != nil:
		s.cfg.Logger.Warn("why", sluice.LogTable, req.Table, sluice.LogError, err)
		refuse(w, sluice.Refuse(sluice.CodeUnableToConnect).WithCause(err))
	default:
		answer(w, out)
	}
}

func answer(w http.ResponseWriter, v any) {
	text, err := json.Marshal(v)
	if err != nil { // strings, numbers and times
		refuse(w, sluice.Refuse(sluice.CodeInternal).WithCause(err))
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write(text) // a client that is gone needs no answer
}

func badRequest(text string) *sluice.Refusal {
	return sluice.Refuse(sluice.CodeBadRequest).WithText("%s", text)
}

func refuse(w http.ResponseWriter, r *sluice.Refusal) {
	w.Header().Set(sluice.HeaderRefusedBy, "inspect")
	w.Header().Set(sluice.HeaderCode, string(r.Code))
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(r.Status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": r.Text, "code": string(r.Code), "hint": r.Remedy})
}
