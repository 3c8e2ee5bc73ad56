package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
)

// Error is an error in PostgREST's shape.
type Error struct {
	Status  int
	Code    string
	Message string
	Details any // string, list or nil
	Hint    any // string or nil
	// Challenge becomes WWW-Authenticate when set.
	Challenge string
	// contentRange and headers are set when not empty.
	contentRange string
	headers      map[string]string
	brief        bool // the body has neither details nor hint
	cause        error
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Unwrap returns the private cause.
func (e *Error) Unwrap() error { return e.cause }

func fail(status int, code, message string) *Error {
	return &Error{Status: status, Code: code, Message: message}
}

// refuse is a refusal in PostgREST's shape, with the remedy as hint.
func refuse(code sluice.Code) *Error {
	r := sluice.Refuse(code)
	e := fail(r.Status, string(code), r.Text).hint(r.Remedy)
	e.cause = r
	return e
}

func (e *Error) details(d any) *Error { e.Details = d; return e }
func (e *Error) hint(h any) *Error    { e.Hint = h; return e }

// body renders the four keys in PostgREST's order, or two of them.
func (e *Error) body() []byte {
	type brief struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	type full struct {
		Code    string `json:"code"`
		Details any    `json:"details"`
		Hint    any    `json:"hint"`
		Message string `json:"message"`
	}
	var v any = full{e.Code, e.Details, e.Hint, e.Message}
	if e.brief {
		v = brief{e.Code, e.Message}
	}
	text, err := marshal(v)
	if err != nil { // strings
		return []byte(`{"code":"PGRSTX00","details":null,"hint":null,"message":"Internal error"}`)
	}
	return text
}

// marshal is json.Marshal without its escapes for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// asError maps any error of a request. anonymous says that no user token was
// sent: a missing right is then 401.
func asError(err error, anonymous bool) *Error {
	var e *Error
	var pe *pgconn.PgError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &tooLarge):
		return refuse(sluice.CodeBodyTooLarge)
	case errors.As(err, &pe):
		return fromPostgres(pe, anonymous)
	case errors.Is(err, sluice.ErrForbidden):
		e = fail(http.StatusForbidden, "42501", "permission denied to set role")
	case errors.Is(err, sluice.ErrTimeout):
		e = fail(http.StatusGatewayTimeout, "PGRST003", "Timed out acquiring connection from connection pool.")
	case errors.Is(err, sluice.ErrUnavailable):
		e = fail(http.StatusServiceUnavailable, "PGRST001", "Database connection lost. Retrying the connection.")
	default:
		e = fail(http.StatusInternalServerError, "PGRSTX00", "Internal error")
	}
	e.cause = err
	return e
}

// fromPostgres maps an error that PostgreSQL raised (spec rest 5.2, 5.3).
func fromPostgres(pe *pgconn.PgError, anonymous bool) *Error {
	if pe.Code == "PGRST" {
		return fromRaise(pe)
	}
	if code, ok := refusedControl(pe); ok {
		e := badControl(code)
		e.cause = pe
		return e
	}
	e := &Error{Status: statusOf(pe, anonymous), Code: pe.Code, Message: pe.Message, cause: pe}
	if pe.Detail != "" {
		e.Details = pe.Detail
	}
	if pe.Hint != "" {
		e.Hint = pe.Hint
	}
	if e.Status == http.StatusUnauthorized {
		e.Challenge = "Bearer"
	}
	return e
}

// refusedControl tells the failure of lateControls from others.
func refusedControl(pe *pgconn.PgError) (code string, ok bool) {
	for _, code := range []string{"PGRST111", "PGRST112"} {
		if pe.Code == "42704" && pe.Message == `unrecognized configuration parameter "`+code+`"` {
			return code, true
		}
	}
	return "", false
}

// fromRaise answers RAISE SQLSTATE 'PGRST', whose message is the body and whose
// detail the status and headers.
func fromRaise(pe *pgconn.PgError) *Error {
	bad := fail(http.StatusInternalServerError, "PGRST121", `Could not parse JSON in the "RAISE SQLSTATE 'PGRST'" error`)
	bad.cause = pe
	var body struct {
		Code, Message *string
		Details, Hint any
	}
	if json.Unmarshal([]byte(pe.Message), &body) != nil || body.Code == nil || body.Message == nil {
		return bad.details("Invalid JSON value for MESSAGE: '" + pe.Message + "'").
			hint("MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', 'hint'.")
	}
	var how struct {
		Status  int
		Headers map[string]string
	}
	const hint = "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: 'status_text'."
	if pe.Detail == "" {
		return bad.details("DETAIL is missing in the RAISE statement").hint(hint)
	}
	if json.Unmarshal([]byte(pe.Detail), &how) != nil || how.Status < 200 || how.Status > 599 || how.Headers == nil || !headersAllowed(how.Headers) {
		return bad.details("Invalid JSON value for DETAIL: '" + pe.Detail + "'").hint(hint)
	}
	return &Error{
		Status: how.Status, Code: *body.Code, Message: *body.Message, Details: body.Details, Hint: body.Hint, headers: how.Headers, cause: pe,
	}
}

var classStatus = map[string]int{
	"08": 503, "09": 500, "0L": 403, "0P": 403, "25": 500, "28": 403, "2D": 500, "38": 500, "39": 500, "3B": 500, "40": 500,
	"53": 503, "54": 500, "55": 500, "57": 500, "58": 500, "F0": 500, "HV": 500, "P0": 500, "XX": 500,
}

var stateStatus = map[string]int{
	"21000": 500, "23503": 409, "23505": 409, "25006": 405, "42883": 404, "42P01": 404, "42P17": 500, "53400": 500, "P0001": 400,
	"57P01": 503, "57P02": 503, "57P03": 503, // the server stops or starts: the connection is lost, the request may be sent again
}

func statusOf(pe *pgconn.PgError, anonymous bool) int {
	switch {
	case pe.Code == "42501" && anonymous:
		return http.StatusUnauthorized
	case pe.Code == "42501":
		return http.StatusForbidden
	case pe.Code == "22023" && strings.HasPrefix(pe.Message, `role "`) && strings.HasSuffix(pe.Message, "does not exist"):
		return http.StatusUnauthorized
	case pe.Code == "21000" && strings.HasSuffix(pe.Message, "requires a WHERE clause"):
		return http.StatusBadRequest
	case strings.HasPrefix(pe.Code, "PT"):
		if n, err := strconv.Atoi(pe.Code[2:]); err == nil && n >= 200 && n < 600 {
			return n
		}
		return http.StatusInternalServerError
	}
	if s, ok := stateStatus[pe.Code]; ok {
		return s
	}
	if len(pe.Code) == 5 {
		if s, ok := classStatus[pe.Code[:2]]; ok {
			return s
		}
	}
	return http.StatusBadRequest
}

// fromToken answers a bearer token that did not verify (spec rest 1.4).
func fromToken(r *sluice.Refusal, bearer sluice.Secret) *Error {
	e := fail(http.StatusUnauthorized, "PGRST301", r.Text)
	switch {
	case errors.Is(r, sluice.ErrTokenExpired):
		e.Code, e.Message = "PGRST303", "JWT expired"
	case errors.Is(r, sluice.ErrTokenClaims):
		e.Code = "PGRST303"
	case errors.Is(r, sluice.ErrTokenKey) && unsecured(bearer):
		e.Message, e.Details = "Wrong or unsupported encoding algorithm", "JWT is unsecured but expected 'alg' was not 'none'"
	case errors.Is(r, sluice.ErrTokenSignature), errors.Is(r, sluice.ErrTokenKey):
		e.Message, e.Details = "No suitable key or wrong key type", "None of the keys was able to decode the JWT"
	case errors.Is(r, sluice.ErrTokenForm) && !strings.HasPrefix(r.Text, "Empty JWT"):
		e.Message = "JWT cryptographic operation failed"
		// The verifier's words are PostgREST's: expected 3 parts in JWT; got 2.
		if c := r.Unwrap(); c != nil && strings.Contains(c.Error(), "expected 3 parts") {
			text, _, _ := strings.Cut(c.Error(), ": ")
			e.Message = "E" + text[1:]
		}
	}
	e.Hint = r.Remedy
	e.Challenge = `Bearer error="invalid_token", error_description="` + strings.ReplaceAll(e.Message, `"`, `'`) + `"`
	e.cause = r
	return e
}

// unsecured reports whether a token says that it is not signed.
func unsecured(bearer sluice.Secret) bool {
	head, _, _ := strings.Cut(string(bearer), ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	var h struct{ Alg string }
	return err == nil && json.Unmarshal(text, &h) == nil && h.Alg == "none"
}
