package auth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

// outcome is what a verified token led to: a session, the code of a PKCE flow, or
// neither when another confirmation is still missing.
type outcome struct {
	kind  string // type of the verification, resolved
	grant *grant
	code  string
}

// verifyLink answers GET /verify, which a browser opens from a mail: it sends it
// on to the application, with the outcome in the address. Only a link without type
// or token is answered as a request.
func (s *Server) verifyLink(w http.ResponseWriter, r *http.Request) error {
	if !s.verifies.allow(s.clientIP(r), s.cfg.Now()) {
		return errRateLimit
	}
	q := r.URL.Query()
	kind, token := q.Get("type"), q.Get("token")
	switch {
	case kind == "":
		return errVerifyKind
	case token == "":
		return errVerifyToken
	}
	target, pkce := s.redirectTarget(r), strings.HasPrefix(token, pkcePrefix)
	out, err := s.useHash(r, kind, token, pkce)
	var query, fragment url.Values
	switch {
	case err != nil:
		fragment = s.errorValues(r, err)
	case out.code != "":
		return sendTo(w, r, http.StatusSeeOther, landing(target, url.Values{"code": {out.code}}, nil))
	case out.grant == nil:
		fragment = url.Values{"message": {halfChanged}}
	default:
		t, err := s.issue(r.Context(), out.grant)
		if err != nil {
			fragment = s.errorValues(r, err)
			break
		}
		fragment = fragmentOf(t)
		fragment.Set("type", out.kind)
	}
	if pkce {
		query = url.Values{}
		for name, value := range fragment {
			query[name] = value
		}
	}
	fragment.Set("sb", "") // marks the address as ours
	return sendTo(w, r, http.StatusSeeOther, landing(target, query, fragment))
}

// halfChanged tells that one of two confirmations has arrived.
const halfChanged = "Confirmation link accepted. Please proceed to confirm link sent to the other email"

// errorClasses are the words of OAuth 2 for a status.
var errorClasses = map[int]string{
	http.StatusBadRequest:          "invalid_request",
	http.StatusUnauthorized:        "unauthorized_client",
	http.StatusForbidden:           "access_denied",
	http.StatusInternalServerError: "server_error",
	http.StatusServiceUnavailable:  "temporarily_unavailable",
}

// deniedCodes are told as access_denied, whatever their status is.
var deniedCodes = map[string]bool{"signup_disabled": true, "user_banned": true, "provider_email_needs_verification": true}

// errorValues describes an error to the application that a browser is sent to.
func (s *Server) errorValues(r *http.Request, err error) url.Values {
	var said *errProviderSays
	if errors.As(err, &said) {
		return url.Values{"error": {said.word}, "error_description": {said.text}}
	}
	var e *apiError
	if !errors.As(err, &e) {
		e = databaseError(err, errUnexpected).(*apiError)
	}
	s.logFailure(r, e, err)
	v := url.Values{"error_code": {e.code}, "error_description": {e.message}}
	if class, found := errorClasses[e.status]; found {
		v.Set("error", class)
	}
	if deniedCodes[e.code] {
		v.Set("error", "access_denied")
	}
	return v
}

type verifyBody struct {
	Type      string `json:"type"`
	Token     string `json:"token"`
	TokenHash string `json:"token_hash"`
	Email     string `json:"email"`
	Phone     string `json:"phone"`
}

// check decides about what does not need the database.
func (b *verifyBody) check() error {
	switch {
	case b.Type == "":
		return errVerifyKind
	case (b.Token == "") == (b.TokenHash == ""):
		return errVerifyEither
	case b.TokenHash != "" && (b.Email != "" || b.Phone != ""):
		return errVerifyHashAlone
	case b.Token != "" && (b.Email == "") == (b.Phone == ""):
		return errVerifyAddress
	}
	return nil
}

// verify answers POST /verify: the digits of a mail with its address, or the hash
// of its link.
func (s *Server) verify(w http.ResponseWriter, r *http.Request) error {
	if !s.verifies.allow(s.clientIP(r), s.cfg.Now()) {
		return errRateLimit
	}
	var body verifyBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	var out *outcome
	var err error
	if body.TokenHash != "" {
		out, err = s.useHash(r, body.Type, body.TokenHash, false)
	} else {
		out, err = s.useCode(r, &body)
	}
	switch {
	case err != nil:
		return err
	case out.grant == nil:
		writeJSON(w, http.StatusOK, struct {
			Code string `json:"code"`
			Msg  string `json:"msg"`
		}{"200", halfChanged})
		return nil
	}
	return s.respond(w, r, out.grant, nil)
}

// useHash uses the token of a link. byCode hands out the code of its PKCE flow in
// place of a session.
func (s *Server) useHash(r *http.Request, kind, hash string, byCode bool) (*outcome, error) {
	accepted := purposesOf(kind)
	if accepted == nil {
		return nil, errVerifyType
	}
	return s.useToken(r, kind, byCode, func(ctx context.Context, tx pg.Tx) (*proof, error) {
		return s.proveByHash(ctx, tx, hash, accepted)
	})
}

// useCode uses the digits of a mail or a message. That there is no such user, no such type or
// no such code is one answer.
func (s *Server) useCode(r *http.Request, body *verifyBody) (*outcome, error) {
	if body.Phone != "" {
		return s.useText(r, body)
	}
	accepted := purposesOf(body.Type)
	email, err := emailOf(body.Email)
	switch {
	case err != nil:
		return nil, errVerifyEmail
	case accepted == nil:
		return nil, errCodeExpired
	}
	ctx := r.Context()
	id, err := s.userOfCode(ctx, email, body.Type, s.audience(r))
	if err != nil {
		return nil, err
	}
	return s.useToken(r, body.Type, false, func(ctx context.Context, tx pg.Tx) (*proof, error) {
		return s.proveByCode(ctx, tx, id, email, body.Token, accepted)
	})
}

// userOfCode finds whom a code was sent to: the user of the address, or the one
// who wants to change to it.
func (s *Server) userOfCode(ctx context.Context, email, kind, aud string) (id uuid.UUID, err error) {
	names := []string{"user_id_by_email"}
	if kind == "email_change" {
		names = append(names, "user_id_by_email_change")
	}
	for _, name := range names {
		err = s.cfg.Pool.QueryRow(ctx, sql(name), email, aud).Scan(&id)
		if !errors.Is(err, pgx.ErrNoRows) {
			return id, pg.Wrap(err, "%s", name)
		}
	}
	return id, errCodeExpired
}

// useToken does what a token is for, in one transaction: of two who present it at
// once, one finds it used. A wrong guess is counted although it is refused.
func (s *Server) useToken(r *http.Request, kind string, byCode bool, find func(context.Context, pg.Tx) (*proof, error)) (*outcome, error) {
	ctx, from := r.Context(), s.clientOf(r)
	var out *outcome
	var refused error
	var changed *user // before its address changed
	err := s.inTx(ctx, func(tx pg.Tx) error {
		p, err := find(ctx, tx)
		if errors.Is(err, errCodeExpired) {
			refused = err
			return nil
		}
		if err != nil {
			return err
		}
		before := *p.user
		out = &outcome{kind: resolvedKind(kind, p.purpose)}
		half, err := s.accept(ctx, tx, p, from)
		if err != nil || half {
			return err
		}
		if before.Email != p.user.Email || before.Phone != p.user.Phone {
			changed = &before
		}
		if byCode {
			out.code, err = s.issueCode(ctx, tx, p.user.ID, p.purpose)
			return err
		}
		out.grant, err = s.signIn(ctx, tx, p.user, byOTP, from)
		return err
	})
	switch {
	case uniqueViolation(err) == "users_email_partial_key":
		return nil, errEmailExists.because(err)
	case uniqueViolation(err) == "users_phone_key":
		return nil, errPhoneExists.because(err)
	case err != nil:
		return nil, databaseError(err, errUpdatingUser)
	case refused != nil:
		return nil, refused
	}
	if changed != nil {
		s.addressChanged(ctx, changed)
	}
	return out, nil
}

// resolvedKind names what type "email" turned out to be.
func resolvedKind(kind string, p purpose) string {
	switch {
	case kind != "email":
		return kind
	case p == toConfirm:
		return "signup"
	}
	return "magiclink"
}

// accept does what a valid token is for, and leaves p.user as it is then. half
// tells that another confirmation is missing, so that nobody is signed in.
func (s *Server) accept(ctx context.Context, tx pg.Tx, p *proof, from client) (half bool, err error) {
	switch p.purpose {
	case toChangePhone:
		return false, s.acceptPhoneChange(ctx, tx, p.user, from)
	case toConfirm:
		if isPhone(p.address) {
			return false, s.acceptPhone(ctx, tx, p.user, from)
		}
		return false, s.acceptConfirmation(ctx, tx, p.user, from)
	case toRecover:
		return false, s.acceptRecovery(ctx, tx, p.user, from)
	}
	return s.acceptEmailChange(ctx, tx, p, from)
}

// acceptConfirmation confirms a sign-up or an invitation. Who was invited gets a
// password that nobody knows, until he sets one.
func (s *Server) acceptConfirmation(ctx context.Context, tx pg.Tx, u *user, from client) error {
	action := "user_signedup"
	if u.InvitedAt != nil && !u.confirmed() {
		action = "invite_accepted"
	}
	if u.InvitedAt != nil && u.password == "" {
		u.password = unknownHash()
		if err := exec(ctx, tx, "user_set_password", u.ID, u.password, s.cfg.Now()); err != nil {
			return err
		}
	}
	return s.proveEmail(ctx, tx, u, action, from)
}

// acceptRecovery takes a magic link or a recovery link, which also proves the
// address.
func (s *Server) acceptRecovery(ctx context.Context, tx pg.Tx, u *user, from client) error {
	if u.EmailConfirmedAt == nil {
		return s.proveEmail(ctx, tx, u, "user_signedup", from)
	}
	if err := exec(ctx, tx, "one_time_token_delete_all", u.ID); err != nil {
		return err
	}
	if err := exec(ctx, tx, "user_tokens_clear", u.ID, s.cfg.Now()); err != nil {
		return err
	}
	return s.audit(ctx, tx, byUser(u), "login", from, map[string]any{"provider": "email"})
}

// proveEmail takes the user's address as proved and records the action.
func (s *Server) proveEmail(ctx context.Context, tx pg.Tx, u *user, action string, from client) error {
	if err := exec(ctx, tx, "identity_verified", u.ID, s.cfg.Now()); err != nil {
		return err
	}
	if err := s.confirmAddress(ctx, tx, u, "email"); err != nil {
		return err
	}
	if app := providersOf(u); app != nil {
		if err := exec(ctx, tx, "user_set_app_metadata", u.ID, app.json(), s.cfg.Now()); err != nil {
			return err
		}
	}
	return s.audit(ctx, tx, byUser(u), action, from, map[string]any{"provider": "email"})
}

// providersOf returns u's app_metadata with the providers that its identities
// have; nil for a user without any.
func providersOf(u *user) metadata {
	if len(u.Identities) == 0 {
		return nil
	}
	all := make([]string, len(u.Identities))
	for i, identity := range u.Identities {
		all[i] = identity.Provider
	}
	app := u.AppMetadata.set("providers", all)
	if _, found := app["provider"]; !found {
		app = app.set("provider", all[0])
	}
	return app
}
