package gateway

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
)

// refusalBody holds the fields in which stock clients look for a text: message
// (REST, Auth), error (the socket's handshake), hint (REST).
type refusalBody struct {
	Message string      `json:"message"`
	Error   string      `json:"error"`
	Code    sluice.Code `json:"code"`
	Hint    string      `json:"hint,omitempty"`
}

// refuse answers with the refusal and notes its code for the log.
func (s *Server) refuse(rec *recorder, r *sluice.Refusal) {
	rec.refused = r.Code
	if r.Cause != nil {
		s.log.Debug("refused", sluice.LogRequest, rec.id, sluice.LogCode, r.Code, sluice.LogError, r.Cause)
	}
	h := rec.Header()
	h.Set(sluice.HeaderRefusedBy, "gateway")
	h.Set(sluice.HeaderCode, string(r.Code))
	writeJSON(rec, r.Status, refusalBody{r.Text, r.Text, r.Code, r.Remedy})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil { // structs of strings
		status, text = http.StatusInternalServerError, []byte(`{"message":"Internal Server Error"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // a client that is gone needs no answer
}

// diagnosis is the answer to a plain GET of the socket's URL: what an upgrade
// would meet.
type diagnosis struct {
	Message  string         `json:"message"`
	Code     sluice.Code    `json:"code"`
	Hint     string         `json:"hint"`
	Key      sluice.KeyKind `json:"key"`
	KeyPlace string         `json:"key_place,omitempty"`
	Role     string         `json:"role,omitempty"`
	Vsn      string         `json:"vsn"`
	Upgrade  string         `json:"upgrade"` // the status that an upgrade would get
}

// diagnose answers a request for the socket that asks for no upgrade.
func (s *Server) diagnose(rec *recorder, r *http.Request, id sluice.Identity, refusal *sluice.Refusal) {
	vsn := r.URL.Query().Get("vsn")
	d := diagnosis{Key: id.Key, KeyPlace: id.KeyPlace, Role: id.KeyClaims.Role, Vsn: vsn, Upgrade: "101"}
	if vsn == "" {
		d.Vsn = "1.0.0 (default)"
	}
	why := sluice.Refuse(sluice.CodeUpgradeRequired)
	switch {
	case refusal != nil:
		why = refusal
		d.Upgrade = strconv.Itoa(refusal.Status)
		if s.cfg.Explain {
			d.Upgrade = "101, every join is answered with this reason"
		}
	case vsn != "" && !strings.HasPrefix(vsn, "1.0.") && !strings.HasPrefix(vsn, "2.0."):
		why = sluice.Refuse(sluice.CodeUnsupportedVersion)
		d.Upgrade = "403"
	}
	d.Message, d.Code, d.Hint = why.Text, why.Code, why.Remedy
	rec.refused = why.Code
	rec.Header().Set(sluice.HeaderRefusedBy, "gateway")
	rec.Header().Set(sluice.HeaderCode, string(why.Code))
	writeJSON(rec, why.Status, d)
}

// recorder notes what the access log tells.
type recorder struct {
	http.ResponseWriter
	start    time.Time
	id       string
	service  string
	identity sluice.Identity
	refused  sluice.Code
	status   int
	bytes    int64
	hijacked bool
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Hijack hands the connection to the WebSocket library.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil {
		r.hijacked, r.status = true, http.StatusSwitchingProtocols
	}
	return c, rw, err
}
