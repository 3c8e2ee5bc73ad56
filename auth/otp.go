package auth

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/pg"
)

type otpBody struct {
	Email           string   `json:"email"`
	Phone           string   `json:"phone"`
	CreateUser      *bool    `json:"create_user"`
	Data            metadata `json:"data"`
	Channel         string   `json:"channel"`
	Challenge       string   `json:"code_challenge"`
	ChallengeMethod string   `json:"code_challenge_method"`
}

// otp answers POST /otp: a code and a link by mail, or a code to a phone, which sign in
// who has them.
func (s *Server) otp(w http.ResponseWriter, r *http.Request) error {
	if !s.otps.allow(s.clientIP(r), s.cfg.Now()) {
		return errRateLimit
	}
	var body otpBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	switch {
	case body.Email != "" && body.Phone != "":
		return errOTPBoth
	case body.Email != "" && body.Channel != "":
		return errOTPChannel
	case body.Email == "" && body.Phone == "":
		return errOTPNeither
	case body.Phone != "" && !s.cfg.EnablePhone:
		return errOTPPhoneOff
	case body.Phone != "":
		return s.textSignIn(w, r, &body)
	}
	return s.mailSignIn(w, r, &body)
}

// magiclink answers POST /magiclink, the older form of /otp.
func (s *Server) magiclink(w http.ResponseWriter, r *http.Request) error {
	if !s.magiclinks.allow(s.clientIP(r), s.cfg.Now()) {
		return errRateLimit
	}
	var body otpBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	if body.Email == "" {
		return errMagicLinkEmail
	}
	body.CreateUser = nil
	return s.mailSignIn(w, r, &body)
}

// mailSignIn mails a confirmed user a magic link and anybody else a confirmation;
// who is new is made first. Under autoconfirm every link is a magic link.
func (s *Server) mailSignIn(w http.ResponseWriter, r *http.Request, body *otpBody) error {
	if !s.cfg.EnableEmail {
		return errLoginEmailOff
	}
	f, err := flowOf(body.ChallengeMethod, body.Challenge)
	if err != nil {
		return err
	}
	email, err := emailOf(body.Email)
	if err != nil {
		return err
	}
	ctx := r.Context()
	n := newUser{id: uuid.New(), aud: s.audience(r), email: email, provider: "email", hash: unknownHash(), meta: body.Data}
	u, err := findUser(ctx, s.cfg.Pool, email, "", n.aud)
	switch {
	case err != nil:
		return err
	case u == nil && body.CreateUser != nil && !*body.CreateUser:
		return errOTPDisabled
	case u == nil && !s.maySignUp(n.aud):
		return errSignupDisabled
	}
	err = s.inMailTx(ctx, func(tx pg.Tx) error {
		if u, err = s.userForLink(ctx, tx, u, n, s.clientOf(r)); err != nil {
			return err
		}
		m, action := confirmationMail, "user_confirmation_requested"
		if u.confirmed() || s.cfg.EmailAutoconfirm {
			m, action = magicLinkMail, "user_recovery_requested"
		}
		if err := s.spaced(ctx, tx, string(m.purpose), u.Email); err != nil {
			return err
		}
		if err := s.audit(ctx, tx, byUser(u), action, s.clientOf(r), nil); err != nil {
			return err
		}
		return s.sendLink(ctx, tx, u, m, f, s.redirectTarget(r))
	})
	if uniqueViolation(err) == "users_email_partial_key" {
		err = nil // another request made the user, and mails
	}
	if err != nil {
		return databaseError(err, errSavingNewUser)
	}
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}

// userForLink returns the locked user whom a link is for: the one found, or a new
// one.
func (s *Server) userForLink(ctx context.Context, tx pg.Tx, found *user, n newUser, from client) (*user, error) {
	if found != nil {
		u, err := lockUser(ctx, tx, found.ID)
		return u, notFound(err)
	}
	u, err := s.createUser(ctx, tx, n)
	if err != nil || !s.autoconfirms(n.provider) {
		return u, err
	}
	if err := s.confirm(ctx, tx, u.ID, n.provider, u.UserMetadata); err != nil {
		return nil, err
	}
	if err := s.audit(ctx, tx, byUser(u), "user_signedup", from, map[string]any{"provider": n.provider}); err != nil {
		return nil, err
	}
	return loadUser(ctx, tx, u.ID)
}

// recover answers POST /recover: a link by mail to set a new password. The answer
// does not tell whether there is a user.
func (s *Server) recover(w http.ResponseWriter, r *http.Request) error {
	if !s.recovers.allow(s.clientIP(r), s.cfg.Now()) {
		return errRateLimit
	}
	var body otpBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	if !s.cfg.EnableEmail {
		return errRecoverEmailOff
	}
	if body.Email == "" {
		return errRecoverEmail
	}
	f, err := flowOf(body.ChallengeMethod, body.Challenge)
	if err != nil {
		return err
	}
	email, err := emailOf(body.Email)
	if err != nil {
		return err
	}
	err = s.mailUser(r, email, toRecover, func(ctx context.Context, tx pg.Tx, u *user) error {
		if err := s.audit(ctx, tx, byUser(u), "user_recovery_requested", s.clientOf(r), nil); err != nil {
			return err
		}
		return s.sendLink(ctx, tx, u, recoveryMail, f, s.redirectTarget(r))
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}

// mailUser runs send for the locked user of an address. Without one it does
// nothing, and is refused as often.
func (s *Server) mailUser(r *http.Request, email string, p purpose, send func(ctx context.Context, tx pg.Tx, u *user) error) error {
	ctx := r.Context()
	found, err := findUser(ctx, s.cfg.Pool, email, "", s.audience(r))
	if err != nil {
		return err
	}
	err = s.inMailTx(ctx, func(tx pg.Tx) error {
		var u *user
		if found != nil {
			if u, err = lockUser(ctx, tx, found.ID); err != nil {
				return notFound(err)
			}
		}
		if err := s.spaced(ctx, tx, string(p), email); err != nil || u == nil {
			return err
		}
		return send(ctx, tx, u)
	})
	return databaseError(err, errUpdatingUser)
}

// resend answers POST /resend: the mail of a sign-up or of a change of address
// once more. That there is nothing to send is not told.
func (s *Server) resend(w http.ResponseWriter, r *http.Request) error {
	if !s.resends.allow(s.clientIP(r), s.cfg.Now()) {
		return errRateLimit
	}
	var body struct {
		otpBody
		Type string `json:"type"`
	}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	f, err := checkResend(body.Type, &body.otpBody)
	if err != nil {
		return err
	}
	if body.Phone != "" {
		return s.resendText(w, r, body.Type, &body.otpBody)
	}
	email, err := emailOf(body.Email)
	if err != nil {
		return err
	}
	p := toConfirm
	if body.Type == "email_change" {
		p = toChangeNew
	}
	if p == toConfirm {
		err = s.mailUser(r, email, p, func(ctx context.Context, tx pg.Tx, u *user) error {
			if u.confirmed() {
				return nil
			}
			if err := s.audit(ctx, tx, byUser(u), "user_confirmation_requested", s.clientOf(r), nil); err != nil {
				return err
			}
			return s.sendLink(ctx, tx, u, confirmationMail, f, s.redirectTarget(r))
		})
	} else {
		err = s.mailUser(r, email, p, func(ctx context.Context, tx pg.Tx, u *user) error {
			if u.NewEmail == "" {
				return nil
			}
			return s.requestEmailChange(ctx, tx, u, u.NewEmail, f, s.redirectTarget(r))
		})
	}
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}

// checkResend checks what a type needs.
func checkResend(kind string, body *otpBody) (flow, error) {
	switch kind {
	case "signup", "email_change":
		if body.Email == "" && body.Phone != "" {
			return flow{}, errResendEmail
		}
	case "sms", "phone_change":
		if body.Phone == "" && body.Email != "" {
			return flow{}, errResendPhone
		}
	default:
		return flow{}, errResendType
	}
	switch {
	case body.Email != "" && body.Phone != "":
		return flow{}, errResendBoth
	case body.Email == "" && body.Phone == "":
		return flow{}, errResendNeither
	}
	return flowOf(body.ChallengeMethod, body.Challenge)
}
