package gateway

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"

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
	s.noteRefusal(rec, r)
	writeJSON(rec, r.Status, refusalBody{r.Text, r.Text, r.Code, r.Remedy})
}

func (s *Server) noteRefusal(rec *recorder, r *sluice.Refusal) {
	rec.refused = r.Code
	if r.Cause != nil {
		s.log.Debug("refused", sluice.LogRequest, rec.id, sluice.LogCode, r.Code, sluice.LogError, r.Cause)
	}
	h := rec.Header()
	h.Set(sluice.HeaderRefusedBy, "gateway")
	h.Set(sluice.HeaderCode, string(r.Code))
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil { // structs of strings
		status, text = http.StatusInternalServerError, []byte(`{"message":"Internal Server Error"}`)
	}
	w.Header().Del("Content-Encoding") // of a service that did not get to its answer
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // a client that is gone needs no answer
}

// strictTexts are the words of a self-hosted stack's gateway, which people and
// scripts look for.
var strictTexts = map[sluice.Code]string{
	sluice.CodeMissingAPIKey:   "No API key found in request",
	sluice.CodeInvalidAPIKey:   "Invalid authentication credentials",
	sluice.CodeDuplicateAPIKey: "Duplicate API key found",
}

// asStrict words a refused key as a self-hosted gateway does; our own text goes
// before the remedy.
func asStrict(r *sluice.Refusal) *sluice.Refusal {
	text, ok := strictTexts[r.Code]
	if !ok {
		return r
	}
	return r.WithText("%s", text).WithRemedy("%s. %s", r.Text, r.Remedy)
}

// diagnosis is the answer to a plain GET of the socket's URL: what an upgrade
// would meet, and why.
type diagnosis struct {
	refusalBody
	Key      sluice.KeyKind `json:"key"`                 // by its form when it is not valid
	KeyPlace string         `json:"key_place,omitempty"` // header, query or bearer
	KeyShown string         `json:"key_shown,omitempty"` // redacted
	KeyValid bool           `json:"key_valid"`
	Role     string         `json:"role,omitempty"`
	Vsn      string         `json:"vsn"`
	VsnValid bool           `json:"vsn_valid"`
	Upgrade  string         `json:"upgrade"` // the status that an upgrade would get
}

// diagnose answers a request for the socket that asks for no upgrade.
func (s *Server) diagnose(rec *recorder, r *http.Request, refusal *sluice.Refusal) {
	id := rec.identity
	vsn := r.URL.Query().Get("vsn")
	d := diagnosis{
		Key: id.Key, KeyPlace: id.KeyPlace, KeyShown: rec.shown, KeyValid: refusal == nil,
		Role: id.KeyClaims.Role, Vsn: vsn, VsnValid: servedVsn(vsn), Upgrade: "101",
	}
	if vsn == "" {
		d.Vsn = "1.0.0 (default)"
	}
	why := sluice.Refuse(sluice.CodeUpgradeRequired)
	switch { // in the order in which an upgrade would be refused
	case !d.VsnValid:
		why = sluice.Refuse(sluice.CodeUnsupportedVersion)
		d.Upgrade = strconv.Itoa(why.Status)
	case refusal != nil:
		why = refusal
		d.Upgrade = strconv.Itoa(refusal.Status)
		if s.cfg.Explain {
			d.Upgrade = "101, and every join is answered with this reason"
		}
	}
	d.refusalBody = refusalBody{why.Text, why.Text, why.Code, why.Remedy}
	s.noteRefusal(rec, why)
	writeJSON(rec, why.Status, d)
}

var semver = regexp.MustCompile(`^[12]\.0\.(0|[1-9][0-9]{0,26})$`)

// servedVsn is Realtime's rule: a whole semantic version in 1.0.x or 2.0.x, or
// none.
func servedVsn(vsn string) bool { return vsn == "" || semver.MatchString(vsn) }
