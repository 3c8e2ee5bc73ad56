package realtime

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// routes are the paths behind /realtime/v1, with and without the prefixes of a
// server that is reached directly.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/websocket", s.accept)
	mux.HandleFunc("/socket/websocket", s.accept)
	mux.HandleFunc("GET /healthcheck", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok")
	})
	mux.HandleFunc("GET /api/ping", s.metered(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"message": "Success"})
	}))
	mux.HandleFunc("POST /api/broadcast", s.metered(s.broadcastBatch))
	mux.HandleFunc("POST /api/broadcast/{topic}/events/{event}", s.metered(s.broadcastOne))
	mux.HandleFunc("GET /metrics", s.metricsPage)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		setRefused(w, sluice.CodeRouteNotFound)
		writeJSON(w, http.StatusNotFound, map[string]string{"message": "not found"})
	})
	return mux
}

// ServeHTTP serves the paths behind /realtime/v1. The request's context carries
// the gateway's sluice.Identity.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// caller returns who sends an HTTP broadcast, or answers 401.
func (s *Server) caller(w http.ResponseWriter, r *http.Request) (sluice.Claims, bool) {
	id, ok := sluice.IdentityFrom(r.Context())
	code := sluice.CodeMissingAPIKey
	switch {
	case !ok, id.Key == sluice.KeyNone && id.Bearer == "":
	case id.BearerErr != nil:
		code = id.BearerErr.Code
	case id.Refusal != nil:
		code = id.Refusal.Code
	case hasExpired(id.Claims):
		code = sluice.CodeInvalidJWTToken
	case !id.Claims.IsZero():
		return id.Claims, true
	}
	s.metrics.Refused.Add(1)
	s.log.Info("broadcast refused", sluice.LogRequest, id.RequestID, sluice.LogCode, code)
	setRefused(w, code)
	writeJSON(w, http.StatusUnauthorized, message("Unauthorized"))
	return sluice.Claims{}, false
}

func message(text string) map[string]string { return map[string]string{"message": text} }

// readBody reads a bounded body, or answers 413 or 400.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.MaxHTTPBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		setRefused(w, sluice.CodeBodyTooLarge)
		writeJSON(w, http.StatusRequestEntityTooLarge, message("Request Entity Too Large"))
	case err != nil:
		writeJSON(w, http.StatusBadRequest, message("Bad Request"))
	default:
		return body, true
	}
	return nil, false
}

// Texts of the original's validation.
const (
	textBlank    = "can't be blank"
	textInvalid  = "is invalid"
	textTooLarge = "Payload size exceeds tenant limit"
)

// fieldErrors are the validation errors of one message.
type fieldErrors map[string][]string

// batchMessage is a valid message of a batch.
type batchMessage struct {
	topic   sluice.Topic
	id      string // chosen by the sender, may be empty
	payload []byte // the whole object that subscribers receive
}

// broadcastBatch serves POST /api/broadcast: all messages or none.
func (s *Server) broadcastBatch(w http.ResponseWriter, r *http.Request) {
	claims, ok := s.caller(w, r)
	if !ok {
		return
	}
	if !acceptsJSON(r) {
		writeJSON(w, http.StatusNotAcceptable, message("Not Acceptable"))
		return
	}
	body, ok := s.readBody(w, r)
	if !ok {
		return
	}
	var top map[string]json.RawMessage
	if !validJSON(body) {
		writeJSON(w, http.StatusBadRequest, message("Bad Request"))
		return
	}
	_ = json.Unmarshal(body, &top) // anything but an object has no messages
	messages, errs := s.parseBatch(top["messages"])
	if errs != nil {
		writeJSON(w, http.StatusUnprocessableEntity, errorsOf("messages", errs))
		return
	}
	if refusal := s.limits.batch(len(messages)); refusal != nil {
		s.refuseRate(w, r, refusal)
		return
	}
	for _, m := range s.permitted(r, claims, messages) {
		s.limits.events.add(1)
		b := sluice.Broadcast{Topic: m.topic, Form: sluice.BroadcastObject, Payload: m.payload, ID: m.id}
		if err := s.hub.Publish(r.Context(), &b); err != nil {
			s.log.Warn("publish broadcast", sluice.LogTopic, m.topic.Name, sluice.LogError, err)
			writeJSON(w, http.StatusInternalServerError, message("RPC error"))
			return
		}
	}
	w.WriteHeader(http.StatusAccepted)
}

func errorsOf(field string, errs any) map[string]any {
	return map[string]any{"errors": map[string]any{field: errs}}
}

// parseBatch checks all messages. errs is nil, a list of texts, or one object
// per message.
func (s *Server) parseBatch(raw json.RawMessage) (out []batchMessage, errs any) {
	if len(raw) == 0 || phoenix.IsNull(raw) {
		return nil, []string{textBlank}
	}
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, []string{textInvalid}
	}
	if len(list) == 0 {
		return nil, []string{textBlank}
	}
	all := make([]fieldErrors, len(list))
	bad := false
	for i, fields := range list {
		if fields == nil { // null
			return nil, []string{textInvalid}
		}
		m, fe := s.parseBatchMessage(fields)
		all[i], out = fe, append(out, m)
		bad = bad || len(fe) > 0
	}
	if bad {
		return nil, all
	}
	return out, nil
}

func (s *Server) parseBatchMessage(fields map[string]json.RawMessage) (batchMessage, fieldErrors) {
	fe := fieldErrors{}
	text := func(name string, required bool) string {
		raw := fields[name]
		var v string
		switch {
		case len(raw) == 0 || phoenix.IsNull(raw):
			if required {
				fe[name] = []string{textBlank}
			}
		case json.Unmarshal(raw, &v) != nil:
			fe[name] = []string{textInvalid}
		case required && strings.TrimSpace(v) == "":
			fe[name] = []string{textBlank}
		case len(v) > maxTopic:
			fe[name] = []string{textInvalid}
		}
		return v
	}
	m := batchMessage{topic: sluice.Topic{Name: text("topic", true)}}
	event, id := text("event", true), text("id", false)
	m.id = id
	switch raw := fields["private"]; string(raw) {
	case "", "null", "false", `"false"`, `"0"`:
	case "true", `"true"`, `"1"`:
		m.topic.Private = true
	default:
		fe["private"] = []string{textInvalid}
	}
	payload := fields["payload"]
	switch {
	case len(payload) == 0 || phoenix.IsNull(payload):
		fe["payload"] = []string{textBlank}
	case !phoenix.IsObject(payload):
		fe["payload"] = []string{textInvalid}
	case len(payload) > s.cfg.maxPayload():
		fe["payload"] = []string{textTooLarge}
	}
	if len(fe) > 0 {
		return m, fe
	}
	dst := make([]byte, 0, len(payload)+len(event)+len(id)+64)
	dst = append(dst, `{"type":"broadcast","event":`...)
	dst = phoenix.AppendString(dst, event)
	dst = append(dst, `,"payload":`...)
	dst = append(dst, payload...)
	if id != "" {
		dst = append(dst, `,"meta":{"id":`...)
		dst = append(phoenix.AppendString(dst, id), '}')
	}
	m.payload = append(dst, '}')
	return m, fe
}

// broadcastOne serves POST /api/broadcast/{topic}/events/{event}: one message
// whose body is the payload.
func (s *Server) broadcastOne(w http.ResponseWriter, r *http.Request) {
	b := sluice.Broadcast{
		Topic: sluice.Topic{Name: r.PathValue("topic"), Private: r.URL.Query().Get("private") == "true"},
		Form:  sluice.BroadcastJSON,
		Event: r.PathValue("event"),
	}
	contentType := r.Header.Get("Content-Type")
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case contentType == "":
	case err == nil && media == "application/json":
	case err == nil && media == "application/octet-stream":
		b.Form = sluice.BroadcastBinary
	default:
		writeJSON(w, http.StatusUnsupportedMediaType, map[string]string{
			"error": "Unsupported Media Type. Use application/json or application/octet-stream",
		})
		return
	}
	if !acceptsJSON(r) {
		writeJSON(w, http.StatusNotAcceptable, message("Not Acceptable"))
		return
	}
	claims, ok := s.caller(w, r)
	if !ok {
		return
	}
	b.Payload = emptyResponse
	if contentType != "" { // else the body is ignored, as in the original
		if b.Payload, ok = s.readBody(w, r); !ok {
			return
		}
	}
	switch {
	case b.Form == sluice.BroadcastJSON && len(strings.TrimSpace(string(b.Payload))) == 0:
		b.Payload = emptyResponse
	case b.Form == sluice.BroadcastJSON && !validJSON(b.Payload):
		writeJSON(w, http.StatusBadRequest, message("Bad Request"))
		return
	}
	switch {
	case strings.TrimSpace(b.Topic.Name) == "":
		writeJSON(w, http.StatusUnprocessableEntity, errorsOf("topic", []string{textBlank}))
	case len(phoenix.TopicPrefix)+len(b.Topic.Name) > 255:
		writeJSON(w, http.StatusUnprocessableEntity, errorsOf("topic", []string{textInvalid}))
	case strings.TrimSpace(b.Event) == "":
		writeJSON(w, http.StatusUnprocessableEntity, errorsOf("event", []string{textBlank}))
	case len(b.Event) > 255:
		writeJSON(w, http.StatusUnprocessableEntity, errorsOf("event", []string{textInvalid}))
	case len(b.Event)+len(b.Payload) > s.cfg.maxPayload():
		writeJSON(w, http.StatusUnprocessableEntity, errorsOf("payload", []string{textTooLarge}))
	case s.limits.events.reached():
		s.refuseRate(w, r, sluice.Refuse(sluice.CodeTooManyEvents).WithText(textRate))
	case b.Topic.Private && !s.permit(w, r, claims, b.Topic.Name):
	default:
		s.limits.events.add(1)
		if err := s.hub.Publish(r.Context(), &b); err != nil {
			s.log.Warn("publish broadcast", sluice.LogTopic, b.Topic.Name, sluice.LogError, err)
			writeJSON(w, http.StatusInternalServerError, message("RPC error"))
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}
}

// acceptsJSON reports whether the Accept header, if any, allows JSON.
func acceptsJSON(r *http.Request) bool {
	accept := r.Header.Values("Accept")
	if len(accept) == 0 {
		return true
	}
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		media, _, _ := strings.Cut(part, ";")
		switch media = strings.ToLower(strings.TrimSpace(media)); {
		case media == "*/*", media == "application/*", media == "", strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "json"):
			return true
		}
	}
	return false
}

// validJSON reports whether b can be spliced into a text frame.
func validJSON(b []byte) bool { return utf8.Valid(b) && json.Valid(b) }
