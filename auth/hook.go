package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// Hook is what the project asks to be called at one of Auth's points.
type Hook struct {
	// URI is pg-functions://ANY/SCHEMA/FUNCTION, a function from jsonb to jsonb
	// that runs in the transaction as supabase_auth_admin; or https://, http:// on
	// this machine alone, which gets a POST signed by Standard Webhooks.
	URI string
	// Secrets sign requests: v1,whsec_BASE64, several separated by "|". Required
	// for a URL.
	Secrets sluice.Secret
}

// Points at which hooks are called.
const (
	hookToken      = "custom_access_token"
	hookBeforeUser = "before_user_created"
	hookAfterUser  = "after_user_created"
	hookPassword   = "password_verification_attempt"
	hookMFA        = "mfa_verification_attempt"
	hookMail       = "send_email"
	hookSMS        = "send_sms"
)

const (
	hookStatement = "2s"            // time limit of a function
	hookTotal     = 5 * time.Second // of a request, with its repetitions
	hookTries     = 3
	maxHookAnswer = 200 << 10
)

// hook is a checked Hook.
type hook struct {
	schema, function string   // of pg-functions
	url              string   // of a request
	keys             [][]byte // that sign it
	client           *http.Client
}

var hookName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

func newHook(h Hook) (*hook, error) {
	u, err := url.Parse(h.URI)
	if err != nil {
		return nil, errors.New("the URI cannot be read")
	}
	switch {
	case u.Scheme == "pg-functions":
		part := strings.Split(strings.Trim(u.Path, "/"), "/")
		if len(part) != 2 || !hookName.MatchString(part[0]) || !hookName.MatchString(part[1]) {
			return nil, errors.New("write pg-functions://postgres/SCHEMA/FUNCTION")
		}
		return &hook{schema: part[0], function: part[1]}, nil
	case u.Scheme == "https" && u.Host != "", u.Scheme == "http" && isLoopback(u.Hostname()):
	default:
		return nil, errors.New("write pg-functions://, https://, or http:// to this machine")
	}
	out := &hook{url: h.URI, client: outbound(u.Hostname())}
	for secret := range strings.SplitSeq(string(h.Secrets), "|") {
		text, found := strings.CutPrefix(strings.TrimSpace(secret), "v1,whsec_")
		key, err := base64.StdEncoding.DecodeString(text)
		if !found || err != nil || len(key) == 0 {
			return nil, errors.New("a secret is not v1,whsec_ and Base64")
		}
		out.keys = append(out.keys, key)
	}
	return out, nil
}

// ask calls the hook of a point, where there is one, and reads its answer into out.
// What the hook refuses becomes the answer to the client.
func (s *Server) ask(ctx context.Context, tx pg.Tx, point string, input map[string]any, out any) (asked bool, err error) {
	h := s.hooks[point]
	if h == nil {
		return false, nil
	}
	ip, _ := ctx.Value(clientKey{}).(netip.Addr)
	input["metadata"] = map[string]any{
		"uuid": uuid.New(), "time": s.cfg.Now().UTC(), "name": strings.ReplaceAll(point, "_", "-"), "ip_address": ip.String(),
	}
	text, err := json.Marshal(input)
	if err != nil {
		return true, err
	}
	var answer []byte
	if h.url != "" {
		answer, err = s.postHook(ctx, h, text)
	} else {
		answer, err = callHook(ctx, tx, h, text)
	}
	if err != nil || len(answer) == 0 {
		return true, err
	}
	return true, readHook(answer, out)
}

// clientKey is the key of the client's address in a request's context.
type clientKey struct{}

// readHook reads an answer: an error, or what the point asks for.
func readHook(answer []byte, out any) error {
	var refused struct {
		Error *struct {
			Code    int    `json:"http_code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer, &refused); err != nil {
		return errHook.because(fmt.Errorf("the hook's answer is no JSON object: %w", err))
	}
	if e := refused.Error; e != nil && (e.Message != "" || e.Code != 0) {
		if e.Code < 400 || e.Code > 599 {
			e.Code = http.StatusInternalServerError
		}
		return refuse(e.Code, "unknown", e.Message)
	}
	dec := json.NewDecoder(bytes.NewReader(answer))
	dec.UseNumber()
	if err := dec.Decode(out); err != nil {
		return errHook.because(fmt.Errorf("read the hook's answer: %w", err))
	}
	return nil
}

// callHook runs a function within its time limit.
func callHook(ctx context.Context, tx pg.Tx, h *hook, input []byte) ([]byte, error) {
	var before, now string
	if err := tx.QueryRow(ctx, sql("hook_time_limit"), hookStatement).Scan(&before, &now); err != nil {
		return nil, pg.Wrap(err, "hook_time_limit")
	}
	var answer []byte
	if err := tx.QueryRow(ctx, sql("hook_call"), h.schema, h.function, input).Scan(&answer); err != nil {
		if pg.SQLState(err) == "57014" {
			return nil, errHookTimeout.because(err)
		}
		return nil, errHook.because(pg.Wrap(err, "hook %s.%s", h.schema, h.function))
	}
	err := tx.QueryRow(ctx, sql("hook_time_limit"), before).Scan(&now, &before)
	return answer, pg.Wrap(err, "hook_time_limit")
}

// errTryAgain is an answer after which a request is repeated.
var errTryAgain = errors.New("the hook asks to be called again")

// postHook sends a request, again where that may help.
func (s *Server) postHook(ctx context.Context, h *hook, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, hookTotal)
	defer cancel()
	for try := 1; ; try++ {
		answer, err := s.postOnce(ctx, h, body)
		var known *apiError
		switch {
		case err == nil, errors.As(err, &known):
			return answer, err
		case ctx.Err() != nil:
			return nil, errHookTimeout.because(err)
		case try == hookTries:
			return nil, errHookRetried.because(err)
		}
		if pause(ctx, s.hookPause) != nil {
			return nil, errHookTimeout.because(err)
		}
	}
}

func (s *Server) postOnce(ctx context.Context, h *hook, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return nil, errHook.because(err)
	}
	id, at := "msg_"+uuid.NewString(), strconv.FormatInt(s.cfg.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("webhook-id", id)
	r.Header.Set("webhook-timestamp", at)
	r.Header.Set("webhook-signature", h.sign(id, at, body))
	res, err := h.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNoContent:
		return nil, nil
	case (res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable) && res.Header.Get("Retry-After") != "":
		return nil, errTryAgain
	case res.StatusCode != http.StatusOK && res.StatusCode != http.StatusAccepted:
		return nil, errHook.because(fmt.Errorf("the hook answers %s", res.Status))
	}
	if kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, errHookType.with(kind)
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxHookAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(answer) > maxHookAnswer:
		return nil, errHookSize
	}
	return answer, nil
}

// sign signs by every secret, so that they can be changed one after the other.
func (h *hook) sign(id, at string, body []byte) string {
	var out []string
	for _, key := range h.keys {
		mac := hmac.New(sha256.New, key)
		_, _ = fmt.Fprintf(mac, "%s.%s.%s", id, at, body) // a hash does not fail
		out = append(out, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(out, " ")
}

// requiredClaims are those that a hook must leave in an access token, with an
// example of their type.
var requiredClaims = map[string]any{
	"aud": "", "exp": json.Number(""), "iat": json.Number(""), "sub": "", "email": "", "phone": "", "role": "", "aal": "",
	"session_id": "", "is_anonymous": false,
}

// checkClaims refuses an access token that the project's services could not read.
func checkClaims(claims map[string]any) error {
	if list, ok := claims["aud"].([]any); ok && len(list) == 1 {
		claims["aud"] = list[0] // always a string in our tokens
	}
	for name, example := range requiredClaims {
		v, found := claims[name]
		if !found || fmt.Sprintf("%T", v) != fmt.Sprintf("%T", example) {
			return errHookClaims.with(name)
		}
	}
	return nil
}

// decision is what a verification's hook says.
type decision struct {
	Decision string `json:"decision"`
	Message  string `json:"message"`
	Logout   bool   `json:"should_logout_user"`
}

func (d decision) rejects() bool { return d.Decision == "reject" }

// customClaims lets the project's hook write the claims of an access token.
func (s *Server) customClaims(ctx context.Context, tx pg.Tx, g *grant, claims map[string]any) (map[string]any, error) {
	if s.hooks[hookToken] == nil {
		return claims, nil
	}
	var out struct {
		Claims map[string]any `json:"claims"`
	}
	_, err := s.ask(ctx, tx, hookToken, map[string]any{"user_id": g.user.ID, "claims": claims, "authentication_method": g.method}, &out)
	if err != nil {
		return nil, databaseError(err, errHook)
	}
	if out.Claims == nil {
		return claims, nil
	}
	return out.Claims, checkClaims(out.Claims)
}

// passwordAttempt asks the project's hook about a right or wrong password.
func (s *Server) passwordAttempt(ctx context.Context, u *user, right bool) error {
	if s.hooks[hookPassword] == nil {
		return nil
	}
	var d decision
	err := s.inTx(ctx, func(tx pg.Tx) error {
		_, err := s.ask(ctx, tx, hookPassword, map[string]any{"user_id": u.ID, "valid": right}, &d)
		if err != nil || !d.rejects() || !d.Logout {
			return err
		}
		return s.endSessions(ctx, tx, u.ID, uuid.Nil)
	})
	if err == nil && d.rejects() {
		return refuse(http.StatusBadRequest, errCredentials.code, d.text(errPasswordRejected))
	}
	return databaseError(err, errHook)
}

// mfaAttempt asks the project's hook about a right or wrong code. A rejection ends
// every session of the user.
func (s *Server) mfaAttempt(ctx context.Context, tx pg.Tx, u *user, f *factor, right bool) (rejected error, err error) {
	var d decision
	_, err = s.ask(ctx, tx, hookMFA, map[string]any{"user_id": u.ID, "factor_id": f.ID, "factor_type": f.FactorType, "valid": right}, &d)
	if err != nil || !d.rejects() {
		return nil, err
	}
	return refuse(errMFARejected.status, errMFARejected.code, d.text(errMFARejected)), s.endSessions(ctx, tx, u.ID, uuid.Nil)
}

// text is what the client is told.
func (d decision) text(standard *apiError) string {
	if d.Message != "" {
		return d.Message
	}
	return standard.message
}
