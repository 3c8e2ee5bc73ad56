package auth

import (
	"errors"
	"net/http"

	"github.com/sluice-dev/sluice/pg"
)

// token answers POST /token by its grant type.
func (s *Server) token(w http.ResponseWriter, r *http.Request) error {
	grantType := r.URL.Query().Get("grant_type")
	if grantType != "web3" && !s.tokens.allow(s.clientIP(r), s.cfg.Now()) {
		return errRateLimit
	}
	switch grantType {
	case "password":
		return s.human(s.passwordGrant)(w, r)
	case "refresh_token":
		return s.refresh(w, r)
	case "pkce":
		return s.pkceGrant(w, r)
	case "id_token":
		return s.idTokenGrant(w, r)
	case "web3":
		return errWeb3Disabled
	}
	return errGrantType
}

// passwordGrant signs a user in. Every way to fail costs one comparison of a
// hash and has one answer, so that it does not tell who has an account; a ban or
// a missing confirmation shows only to who knows the password.
func (s *Server) passwordGrant(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Email    string `json:"email"`
		Phone    string `json:"phone"`
		Password string `json:"password"`
	}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	switch {
	case body.Email != "" && body.Phone != "":
		return errLoginBoth
	case body.Email == "" && body.Phone == "":
		return errLoginNeither
	case body.Email != "" && !s.cfg.EnableEmail:
		return errLoginEmailOff
	case body.Phone != "" && !s.cfg.EnablePhone:
		return errLoginPhoneOff
	}
	ctx := r.Context()
	u, err := s.userOfLogin(r, body.Email, body.Phone)
	if err != nil {
		return err
	}
	stored := ""
	if u != nil {
		stored = u.password
	}
	right, err := s.hasher.verify(ctx, stored, body.Password)
	if err == nil && u != nil {
		err = s.passwordAttempt(ctx, u, right)
	}
	switch {
	case err != nil:
		return err
	case u == nil || !right:
		return errCredentials
	case u.banned(s.cfg.Now()):
		return errLoginBanned
	case body.Email != "" && u.EmailConfirmedAt == nil:
		return errEmailUnconfirmed
	case body.Phone != "" && u.PhoneConfirmedAt == nil:
		return errPhoneUnconfirmed
	}
	provider, from := "email", s.clientOf(r)
	if body.Phone != "" {
		provider = "phone"
	}
	var g *grant
	err = s.inTx(ctx, func(tx pg.Tx) error {
		if g, err = s.signIn(ctx, tx, u, byPassword, from); err != nil {
			return err
		}
		return s.audit(ctx, tx, byUser(u), "login", from, map[string]any{"provider": provider})
	})
	if err != nil {
		return databaseError(err, errGrantingSession)
	}
	var note *weakPassword
	var weak *apiError
	if errors.As(s.checkStrength(ctx, body.Password), &weak) {
		note = &weakPassword{weak.message, weak.reasons}
	}
	return s.respond(w, r, g, note)
}

// userOfLogin finds the user of an address; a malformed one has none.
func (s *Server) userOfLogin(r *http.Request, email, phone string) (*user, error) {
	var err error
	if email != "" {
		email, err = emailOf(email)
	} else {
		phone, err = phoneOf(phone)
	}
	if err != nil {
		return nil, nil //nolint:nilerr // nobody has such an address
	}
	return findUser(r.Context(), s.cfg.Pool, email, phone, s.audience(r))
}
