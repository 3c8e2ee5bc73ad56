package auth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/pg"
)

// getUser answers GET /user.
func (s *Server) getUser(w http.ResponseWriter, r *http.Request) error {
	c, err := s.caller(r)
	if err != nil {
		return err
	}
	if !c.meant(r) {
		return errAudience
	}
	writeJSON(w, http.StatusOK, c.user)
	return nil
}

type updateBody struct {
	Email           string   `json:"email"`
	Phone           string   `json:"phone"`
	Password        *string  `json:"password"`
	CurrentPassword string   `json:"current_password"`
	Nonce           string   `json:"nonce"`
	Data            metadata `json:"data"`
	AppMetadata     metadata `json:"app_metadata"`
	Channel         string   `json:"channel"`
	Challenge       string   `json:"code_challenge"`
	ChallengeMethod string   `json:"code_challenge_method"`
}

// update is a checked updateBody: only what changes is set.
type update struct {
	email, phone string
	channel      string // of the message to the new phone
	hash         string // of the new password
	data         metadata
	flow         flow
	redirect     string // where links in mails lead
}

// updateUser answers PUT /user. Passwords are compared and hashed before the
// transaction; what the caller may do is decided again inside of it.
func (s *Server) updateUser(w http.ResponseWriter, r *http.Request) error {
	if !s.updates.allow(s.clientIP(r), s.cfg.Now()) {
		return errRateLimit
	}
	c, err := s.caller(r)
	if err != nil {
		return err
	}
	var body updateBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	change, err := s.checkUpdate(ctx, c, &body)
	if err != nil {
		return err
	}
	change.redirect = s.redirectTarget(r)
	if body.Password != nil {
		if err := s.checkNewPassword(ctx, c, &body); err != nil {
			return err
		}
		if change.hash, err = s.hasher.hash(ctx, *body.Password); err != nil {
			return err
		}
	}
	begin := s.inTx
	if change.email != "" || change.phone != "" {
		begin = s.inMailTx
	}
	var after *user
	err = begin(ctx, func(tx pg.Tx) error {
		if err := s.applyUpdate(ctx, tx, c, change); err != nil {
			return err
		}
		if err := s.audit(ctx, tx, byUser(c.user), "user_modified", s.clientOf(r), nil); err != nil {
			return err
		}
		var err error
		after, err = loadUser(ctx, tx, c.ID)
		return err
	})
	switch uniqueViolation(err) {
	case "users_email_partial_key", "identities_provider_id_provider_unique":
		return errEmailExists.because(err)
	case "users_phone_key":
		return errPhoneExists.because(err)
	}
	if err != nil {
		return databaseError(err, errUpdatingUser)
	}
	if change.hash != "" {
		s.notify(ctx, after, letter{template: "password_changed", to: after.Email})
	}
	writeJSON(w, http.StatusOK, after)
	return nil
}

// checkUpdate decides about all but passwords, in the original's order.
func (s *Server) checkUpdate(ctx context.Context, c *caller, body *updateBody) (update, error) {
	var change update
	var err error
	if body.Email != "" {
		if change.email, err = emailOf(body.Email); err != nil {
			return change, err
		}
	}
	if body.Phone != "" {
		if change.phone, err = phoneOf(body.Phone); err != nil {
			return change, err
		}
		if change.channel, err = s.channelOf(body.Channel); err != nil {
			return change, err
		}
	}
	if body.Password != nil {
		if err := s.checkPassword(ctx, *body.Password); err != nil {
			return change, err
		}
	}
	if change.flow, err = flowOf(body.ChallengeMethod, body.Challenge); err != nil {
		return change, err
	}
	if body.AppMetadata != nil {
		return change, errAppMetadata
	}
	if change.email == c.Email {
		change.email = ""
	}
	if change.phone == c.Phone {
		change.phone = ""
	}
	credentials := body.Password != nil || change.email != "" || change.phone != ""
	if credentials && c.hasVerifiedFactor() && !c.aal2() {
		return change, errAAL2Required
	}
	if c.IsAnonymous && body.Password != nil && change.email == "" && change.phone == "" && c.Email == "" && c.Phone == "" {
		return change, errAnonymousSecret
	}
	if c.isSSO && (credentials || body.Nonce != "") {
		return change, errManagedBySSO
	}
	change.data = body.Data
	return change, s.addressesFree(ctx, c.user, change.email, change.phone)
}

// addressesFree refuses addresses of other users. This endpoint does tell who has
// an account; clients rely on it.
func (s *Server) addressesFree(ctx context.Context, u *user, email, phone string) error {
	if email != "" {
		switch other, err := findUser(ctx, s.cfg.Pool, email, "", u.Aud); {
		case err != nil:
			return err
		case other != nil && other.ID != u.ID:
			return errEmailExists
		}
	}
	if phone != "" {
		switch other, err := findUser(ctx, s.cfg.Pool, "", phone, u.Aud); {
		case err != nil:
			return err
		case other != nil && other.ID != u.ID:
			return errPhoneExists
		}
	}
	return nil
}

// reauthenticateAfter is how old a session may be to change the password, where
// that is restricted.
const reauthenticateAfter = 24 * time.Hour

// checkNewPassword decides whether the caller may set the password.
func (s *Server) checkNewPassword(ctx context.Context, c *caller, body *updateBody) error {
	if s.cfg.SecurePasswordChange && (c.session == nil || s.cfg.Now().Sub(c.session.createdAt) > reauthenticateAfter) {
		if body.Nonce == "" {
			return errReauthenticate
		}
		if err := s.checkNonce(ctx, c, body.Nonce); err != nil {
			return err
		}
	}
	if c.password == "" {
		return nil
	}
	if s.cfg.RequireCurrentPassword {
		recovered, err := s.cameByLink(ctx, c)
		if err != nil {
			return err
		}
		if !recovered {
			if body.CurrentPassword == "" {
				return errCurrentMissing
			}
			right, err := s.hasher.verify(ctx, c.password, body.CurrentPassword)
			if err != nil {
				return err
			}
			if !right {
				return errCurrentWrong
			}
		}
	}
	same, err := s.hasher.verify(ctx, c.password, *body.Password)
	if err != nil {
		return err
	}
	if same {
		return errSamePassword
	}
	return nil
}

// cameByLink reports whether the session was opened from a mail, by someone who
// may have forgotten the password. What the database says counts, not a claim.
func (s *Server) cameByLink(ctx context.Context, c *caller) (bool, error) {
	if c.session == nil {
		return false, nil
	}
	methods, err := loadAMR(ctx, s.cfg.Pool, c.session.id)
	return slices.ContainsFunc(methods, func(m amr) bool {
		return m.Method == "otp" || m.Method == "magiclink" || m.Method == "recovery"
	}), err
}

// applyUpdate writes the change. The caller may have been signed out or changed
// the password elsewhere since it was checked: then nothing is written.
func (s *Server) applyUpdate(ctx context.Context, tx pg.Tx, c *caller, change update) error {
	u, err := lockUser(ctx, tx, c.ID)
	if errors.Is(notFound(err), errUserNotFound) {
		return errSubjectGone
	}
	if err != nil {
		return err
	}
	if c.session != nil {
		var there bool
		if err := tx.QueryRow(ctx, sql("session_exists"), c.session.id).Scan(&there); err != nil {
			return pg.Wrap(err, "session_exists")
		}
		if !there {
			return errSessionGone
		}
	}
	if change.hash != "" {
		if u.password != c.password {
			return errUserChanged
		}
		if err := s.setPassword(ctx, tx, u, change.hash, c.sessionID()); err != nil {
			return err
		}
	}
	if change.data != nil {
		meta := u.UserMetadata.merge(change.data)
		if err := meta.check(); err != nil {
			return err
		}
		if err := exec(ctx, tx, "user_set_user_metadata", u.ID, meta.json(), s.cfg.Now()); err != nil {
			return err
		}
		u.UserMetadata = meta
	}
	if change.email != "" && !strings.EqualFold(change.email, u.Email) {
		var err error
		if u.IsAnonymous && s.cfg.EmailAutoconfirm {
			err = s.setAddress(ctx, tx, u, "email", change.email, true)
		} else { // everybody else proves the new address by a mail
			err = s.requestEmailChange(ctx, tx, u, change.email, change.flow, change.redirect)
		}
		if err != nil {
			return err
		}
	}
	if change.phone != "" {
		if !s.cfg.EnablePhone {
			return errNoSMSProvider
		}
		if !s.cfg.PhoneAutoconfirm {
			_, err := s.textCode(ctx, tx, u, toChangePhone, change.phone, change.channel)
			return err
		}
		if err := s.setAddress(ctx, tx, u, "phone", change.phone, true); err != nil {
			return err
		}
	}
	return nil
}

// setPassword stores a new hash, voids pending codes and links and ends every session
// but one; the nil UUID spares none.
func (s *Server) setPassword(ctx context.Context, tx pg.Tx, u *user, hash string, spare uuid.UUID) error {
	if err := exec(ctx, tx, "user_set_password", u.ID, hash, s.cfg.Now()); err != nil {
		return err
	}
	if err := exec(ctx, tx, "one_time_token_delete_all", u.ID); err != nil {
		return err
	}
	return s.endSessions(ctx, tx, u.ID, spare)
}

// setAddress applies a new email address or phone number with its identity. A
// verified one makes an anonymous user permanent.
func (s *Server) setAddress(ctx context.Context, tx pg.Tx, u *user, provider, address string, verified bool) error {
	now := s.cfg.Now()
	if err := exec(ctx, tx, "user_set_"+provider, u.ID, address, now); err != nil {
		return err
	}
	data := identityData(u.ID, "", false).set(provider+"_verified", verified).set(provider, address)
	if err := exec(ctx, tx, "identity_set", u.ID.String(), u.ID, data.json(), provider, now); err != nil {
		return err
	}
	if err := exec(ctx, tx, "user_set_app_metadata", u.ID, addProvider(u, provider).json(), now); err != nil {
		return err
	}
	if !verified {
		return nil
	}
	return s.confirmAddress(ctx, tx, u, provider)
}

// confirmAddress confirms, and makes an anonymous user permanent.
func (s *Server) confirmAddress(ctx context.Context, tx pg.Tx, u *user, provider string) error {
	if err := s.confirm(ctx, tx, u.ID, provider, u.UserMetadata); err != nil {
		return err
	}
	u.UserMetadata = u.UserMetadata.set(provider+"_verified", true)
	return s.makePermanent(ctx, tx, u)
}

func (s *Server) makePermanent(ctx context.Context, tx pg.Tx, u *user) error {
	if !u.IsAnonymous {
		return nil
	}
	u.IsAnonymous = false
	return exec(ctx, tx, "user_set_permanent", u.ID, s.cfg.Now())
}
