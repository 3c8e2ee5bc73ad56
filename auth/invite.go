package auth

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/pg"
)

// invite answers POST /invite: a user without password, and a mail that lets him
// in. Who has not followed an earlier invitation is invited again.
func (s *Server) invite(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Email string   `json:"email"`
		Data  metadata `json:"data"`
	}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	email, err := emailOf(body.Email)
	if err != nil {
		return err
	}
	ctx := r.Context()
	n := newUser{id: uuid.New(), aud: s.audience(r), email: email, provider: "email", meta: body.Data}
	var u *user
	err = s.inMailTx(ctx, func(tx pg.Tx) error {
		if u, err = s.invited(ctx, tx, r, n); err != nil {
			return err
		}
		if err := s.sendLink(ctx, tx, u, inviteMail, flow{}, s.redirectTarget(r)); err != nil {
			return err
		}
		u, err = loadUser(ctx, tx, u.ID)
		return err
	})
	if uniqueViolation(err) == "users_email_partial_key" {
		return errEmailExists.because(err)
	}
	if err != nil {
		return databaseError(err, errSavingNewUser)
	}
	writeJSON(w, http.StatusOK, u)
	return nil
}

// invited returns the locked user of an invitation, made where there is none.
func (s *Server) invited(ctx context.Context, tx pg.Tx, r *http.Request, n newUser) (*user, error) {
	u, err := findUser(ctx, tx, n.email, "", n.aud)
	switch {
	case err != nil:
		return nil, err
	case u == nil:
		u, err = s.createUser(ctx, tx, n)
	default:
		u, err = lockUser(ctx, tx, u.ID)
	}
	if err != nil {
		return nil, notFound(err)
	}
	if u.confirmed() {
		return nil, errEmailExists
	}
	if err := exec(ctx, tx, "user_invited", u.ID, s.cfg.Now()); err != nil {
		return nil, err
	}
	return u, s.audit(ctx, tx, byAdmin(r), "user_invited", s.clientOf(r), traitsOf(u))
}

type linkBody struct {
	Type       string   `json:"type"`
	Email      string   `json:"email"`
	NewEmail   string   `json:"new_email"`
	Password   string   `json:"password"`
	Data       metadata `json:"data"`
	RedirectTo string   `json:"redirect_to"`
}

// generatedLink is a user with a link that was not mailed.
type generatedLink struct {
	user       *user
	ActionLink string `json:"action_link"`
	Code       string `json:"email_otp"`
	Hash       string `json:"hashed_token"`
	Kind       string `json:"verification_type"`
	RedirectTo string `json:"redirect_to"`
}

// MarshalJSON puts the user's fields beside the link's.
func (g *generatedLink) MarshalJSON() ([]byte, error) {
	type fields generatedLink
	return json.Marshal(struct {
		*user
		*fields
	}{g.user, (*fields)(g)})
}

// generateLink answers POST /admin/generate_link: what a mail would hold, for an
// administrator who sends his own.
func (s *Server) generateLink(w http.ResponseWriter, r *http.Request) error {
	var body linkBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	var err error
	if body.Email, err = emailOf(body.Email); err != nil {
		return err
	}
	ctx, aud := r.Context(), s.audience(r)
	found, err := findUser(ctx, s.cfg.Pool, body.Email, "", aud)
	if err != nil {
		return err
	}
	n := newUser{id: uuid.New(), aud: aud, email: body.Email, provider: "email", meta: body.Data}
	if n.hash, err = s.checkLink(ctx, &body, found, aud); err != nil {
		return err
	}
	redirect := s.redirectTarget(r)
	if body.RedirectTo != "" && s.redirects.allow(body.RedirectTo) {
		redirect = body.RedirectTo
	}
	var g *generatedLink
	err = s.inTx(ctx, func(tx pg.Tx) error {
		u, err := s.userOfLink(ctx, tx, r, &body, found, n)
		if err != nil {
			return err
		}
		if g, err = s.storeLink(ctx, tx, u, &body, redirect); err != nil {
			return err
		}
		g.user, err = loadUser(ctx, tx, u.ID)
		return err
	})
	if uniqueViolation(err) == "users_email_partial_key" {
		return errEmailExists.because(err)
	}
	if err != nil {
		return databaseError(err, errSavingNewUser)
	}
	writeJSON(w, http.StatusOK, g)
	return nil
}

// checkLink decides whether the link can be made, and hashes the password of a user
// whom it makes. A magic link for nobody becomes a sign-up.
func (s *Server) checkLink(ctx context.Context, body *linkBody, found *user, aud string) (hash string, err error) {
	kind := body.Type
	switch kind {
	case "magiclink":
		if found == nil {
			body.Type = "signup"
			return unknownHash(), nil
		}
		return "", nil
	case "invite":
		return "", nil
	case "signup":
		switch {
		case found != nil:
			return "", nil
		case body.Password == "":
			return "", errSignupPassword
		}
		if err := s.checkPassword(ctx, body.Password); err != nil {
			return "", err
		}
		return s.hasher.hash(ctx, body.Password)
	case "recovery", "email_change_current", "email_change_new":
	default:
		return "", errLinkType.with(kind)
	}
	switch {
	case found == nil:
		return "", errLinkUser
	case kind == "recovery":
		return "", nil
	case kind == "email_change_current" && !s.cfg.DoubleConfirmChanges:
		return "", errLinkCurrent
	}
	if body.NewEmail, err = emailOf(body.NewEmail); err != nil {
		return "", err
	}
	return "", s.addressesFree(ctx, &user{ID: found.ID, Aud: aud}, body.NewEmail, "")
}

// userOfLink returns the locked user whom a link is for, made where its type makes
// users.
func (s *Server) userOfLink(ctx context.Context, tx pg.Tx, r *http.Request, body *linkBody, found *user, n newUser) (*user, error) {
	if body.Type == "invite" {
		return s.invited(ctx, tx, r, n)
	}
	if found == nil {
		return s.createUser(ctx, tx, n)
	}
	u, err := lockUser(ctx, tx, found.ID)
	if err != nil || body.Type != "signup" {
		return u, notFound(err)
	}
	if u.confirmed() {
		return nil, errEmailExists
	}
	if body.Data == nil {
		return u, nil
	}
	u.UserMetadata = u.UserMetadata.merge(body.Data)
	if err := u.UserMetadata.check(); err != nil {
		return nil, err
	}
	return u, exec(ctx, tx, "user_set_user_metadata", u.ID, u.UserMetadata.json(), s.cfg.Now())
}

// storeLink replaces the user's token with that of the link.
func (s *Server) storeLink(ctx context.Context, tx pg.Tx, u *user, body *linkBody, redirect string) (*generatedLink, error) {
	var tok oneTime
	var err error
	kind := body.Type
	switch kind {
	case "signup", "invite":
		tok = s.newOneTime(u.Email, flow{})
		err = s.storeOneTime(ctx, tx, u, toConfirm, tok)
	case "magiclink", "recovery":
		tok = s.newOneTime(u.Email, flow{})
		err = s.storeOneTime(ctx, tx, u, toRecover, tok)
	default:
		kind = "email_change"
		tok, err = s.storeChangeLink(ctx, tx, u, body)
	}
	return &generatedLink{
		ActionLink: s.linkTo(tok.hash, kind, redirect), Code: tok.code, Hash: tok.hash, Kind: body.Type, RedirectTo: redirect,
	}, err
}

// storeChangeLink stores the token of one side of a change of address. The other
// side's stays, as long as the address is the same: an administrator makes both
// links one after the other.
func (s *Server) storeChangeLink(ctx context.Context, tx pg.Tx, u *user, body *linkBody) (oneTime, error) {
	p, address := toChangeNew, body.NewEmail
	if body.Type == "email_change_current" {
		p, address = toChangeCurrent, u.Email
	}
	tok := s.newOneTime(address, flow{})
	if u.NewEmail != body.NewEmail {
		if err := s.storeEmailChange(ctx, tx, u, body.NewEmail, oneTime{}, oneTime{}); err != nil {
			return tok, err
		}
	}
	if err := exec(ctx, tx, "user_email_change_link", u.ID, string(p), tok.hash, s.cfg.Now()); err != nil {
		return tok, err
	}
	return tok, s.setOneTime(ctx, tx, u.ID, p, tok, address)
}
