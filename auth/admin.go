package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// adminBody is what an administrator may say about a user.
type adminBody struct {
	ID           string   `json:"id"`
	Aud          string   `json:"aud"`
	Role         string   `json:"role"`
	Email        string   `json:"email"`
	Phone        string   `json:"phone"`
	Password     *string  `json:"password"`
	PasswordHash string   `json:"password_hash"`
	EmailConfirm bool     `json:"email_confirm"`
	PhoneConfirm bool     `json:"phone_confirm"`
	UserMetadata metadata `json:"user_metadata"`
	AppMetadata  metadata `json:"app_metadata"`
	BanDuration  string   `json:"ban_duration"`
}

// normalise checks what create and update have in common.
func (b *adminBody) normalise() (ban *time.Duration, err error) {
	if b.Email != "" {
		if b.Email, err = emailOf(b.Email); err != nil {
			return nil, err
		}
	}
	if b.Phone != "" {
		if b.Phone, err = phoneOf(b.Phone); err != nil {
			return nil, err
		}
	}
	if len(b.Role) > maxName || len(b.Aud) > maxName {
		return nil, errRoleName
	}
	if b.BanDuration == "" {
		return nil, nil
	}
	var d time.Duration
	if b.BanDuration != "none" {
		if d, err = time.ParseDuration(b.BanDuration); err != nil {
			return nil, errBanDuration.with(err.Error())
		}
		if d < 0 {
			return nil, errBanDuration.with("it is negative")
		}
	}
	return &d, nil
}

// adminCreate answers POST /admin/users. Strength, disabled sign-ups and disabled
// providers do not count here, and no mail is sent.
func (s *Server) adminCreate(w http.ResponseWriter, r *http.Request) error {
	var body adminBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	ban, err := body.normalise()
	if err != nil {
		return err
	}
	n, err := s.checkCreate(r, &body)
	if err != nil {
		return err
	}
	ctx := r.Context()
	var u *user
	err = s.inTx(ctx, func(tx pg.Tx) error {
		if err := s.insertUser(ctx, tx, n); err != nil {
			return err
		}
		var err error
		if u, err = s.completeCreated(ctx, tx, n, &body, ban); err != nil {
			return err
		}
		if err := s.afterUser(ctx, tx, u); err != nil {
			return err
		}
		return s.audit(ctx, tx, byAdmin(r), "user_signedup", s.clientOf(r), traitsOf(u))
	})
	switch uniqueViolation(err) {
	case "users_email_partial_key":
		return errEmailExists.because(err)
	case "users_phone_key":
		return errAdminPhoneExists.because(err)
	case "users_pkey":
		return errAdminIDExists.because(err)
	}
	if err != nil {
		return databaseError(err, errSavingNewUser)
	}
	writeJSON(w, http.StatusOK, u)
	return nil
}

// checkCreate decides about a new user and hashes its password.
func (s *Server) checkCreate(r *http.Request, body *adminBody) (newUser, error) {
	n := newUser{id: uuid.New(), aud: body.Aud, role: body.Role, email: body.Email, phone: body.Phone, meta: body.UserMetadata}
	var providers []string
	if n.email != "" {
		providers = append(providers, "email")
	}
	if n.phone != "" {
		providers = append(providers, "phone")
	}
	if providers == nil {
		return n, errAdminNeither
	}
	n.app = providerMetadata(providers...).merge(body.AppMetadata)
	if n.aud == "" {
		n.aud = s.audience(r)
	}
	if body.ID != "" {
		var ok bool
		if n.id, ok = parseUUID(body.ID); !ok {
			return n, errAdminID
		}
		if n.id == uuid.Nil {
			return n, errAdminNilID
		}
	}
	if err := n.app.check(); err != nil {
		return n, err
	}
	if err := s.addressesFree(r.Context(), &user{ID: n.id, Aud: n.aud}, n.email, n.phone); err != nil {
		if errors.Is(err, errPhoneExists) {
			err = errAdminPhoneExists
		}
		return n, err
	}
	password := ""
	if body.Password != nil {
		password = *body.Password
	}
	switch {
	case body.PasswordHash != "" && password != "":
		return n, errAdminBothSecrets
	case body.PasswordHash != "":
		if _, err := checkerOf(body.PasswordHash); err != nil || len(body.PasswordHash) > maxName {
			return n, errAdminHash.because(err)
		}
		n.hash = body.PasswordHash
		return n, nil
	case password == "":
		n.hash = unknownHash()
		return n, nil
	case len(password) > maxPassword:
		return n, errPasswordTooLong
	}
	var err error
	n.hash, err = s.hasher.hash(r.Context(), password)
	return n, err
}

// completeCreated adds to an inserted user its identities, confirmations and ban.
func (s *Server) completeCreated(ctx context.Context, tx pg.Tx, n newUser, body *adminBody, ban *time.Duration) (*user, error) {
	now := s.cfg.Now()
	for _, p := range []struct {
		provider, address string
		confirm           bool
	}{{"email", n.email, body.EmailConfirm}, {"phone", n.phone, body.PhoneConfirm}} {
		if p.address == "" {
			continue
		}
		data := identityData(n.id, "", false).set(p.provider, p.address)
		if err := exec(ctx, tx, "identity_insert", n.id.String(), n.id, data.json(), p.provider, now); err != nil {
			return nil, err
		}
		if !p.confirm {
			continue
		}
		if err := s.confirm(ctx, tx, n.id, p.provider, n.meta); err != nil {
			return nil, err
		}
		n.meta = n.meta.set(p.provider+"_verified", true)
	}
	if err := s.setBan(ctx, tx, n.id, ban); err != nil {
		return nil, err
	}
	return loadUser(ctx, tx, n.id)
}

// setBan bans for a duration, lifts the ban at zero, and does nothing for nil.
func (s *Server) setBan(ctx context.Context, tx pg.Tx, id uuid.UUID, ban *time.Duration) error {
	if ban == nil {
		return nil
	}
	now := s.cfg.Now()
	var until *time.Time
	if *ban > 0 {
		t := now.Add(*ban)
		until = &t
	}
	return exec(ctx, tx, "user_set_ban", id, until, now)
}

func traitsOf(u *user) map[string]any {
	return map[string]any{"user_id": u.ID, "user_email": u.Email, "user_phone": u.Phone}
}

// adminGet answers GET /admin/users/{id}.
func (s *Server) adminGet(w http.ResponseWriter, r *http.Request) error {
	id, ok := parseUUID(r.PathValue("id"))
	if !ok {
		return errUserIDForm
	}
	u, err := loadUser(r.Context(), s.cfg.Pool, id)
	if err != nil {
		return notFound(err)
	}
	writeJSON(w, http.StatusOK, u)
	return nil
}

// notFound gives a missing user its refusal.
func notFound(err error) error {
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, sluice.ErrNotFound) && pg.SQLState(err) == "" {
		return errUserNotFound
	}
	return err
}

// adminUpdate answers PUT /admin/users/{id}. Changes apply at once; a new
// password ends every session of the user.
func (s *Server) adminUpdate(w http.ResponseWriter, r *http.Request) error {
	id, ok := parseUUID(r.PathValue("id"))
	if !ok {
		return errUserIDForm
	}
	var body adminBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	u, err := loadUser(ctx, s.cfg.Pool, id)
	if err != nil {
		return notFound(err)
	}
	ban, err := body.normalise()
	if err != nil {
		return err
	}
	hash := ""
	if body.Password != nil {
		if err := s.checkPassword(ctx, *body.Password); err != nil {
			return err
		}
		if hash, err = s.hasher.hash(ctx, *body.Password); err != nil {
			return err
		}
	}
	if err := s.addressesFree(ctx, u, body.Email, body.Phone); err != nil {
		return err
	}
	err = s.inTx(ctx, func(tx pg.Tx) error {
		if u, err = lockUser(ctx, tx, id); err != nil {
			return notFound(err)
		}
		if err := s.applyAdmin(ctx, tx, u, &body, hash, ban); err != nil {
			return err
		}
		if u, err = loadUser(ctx, tx, id); err != nil {
			return err
		}
		return s.audit(ctx, tx, byAdmin(r), "user_modified", s.clientOf(r), traitsOf(u))
	})
	switch uniqueViolation(err) {
	case "users_email_partial_key":
		return errEmailExists.because(err)
	case "users_phone_key":
		return errPhoneExists.because(err)
	}
	if err != nil {
		return databaseError(err, errUpdatingUser)
	}
	writeJSON(w, http.StatusOK, u)
	return nil
}

// applyAdmin writes an administrator's changes to a locked user.
func (s *Server) applyAdmin(ctx context.Context, tx pg.Tx, u *user, body *adminBody, hash string, ban *time.Duration) error {
	now := s.cfg.Now()
	if body.UserMetadata != nil {
		u.UserMetadata = u.UserMetadata.merge(body.UserMetadata)
		if err := u.UserMetadata.check(); err != nil {
			return err
		}
		if err := exec(ctx, tx, "user_set_user_metadata", u.ID, u.UserMetadata.json(), now); err != nil {
			return err
		}
	}
	if body.AppMetadata != nil {
		u.AppMetadata = u.AppMetadata.merge(body.AppMetadata)
		if err := u.AppMetadata.check(); err != nil {
			return err
		}
		if err := exec(ctx, tx, "user_set_app_metadata", u.ID, u.AppMetadata.json(), now); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		provider, address string
		confirm           bool
	}{{"email", body.Email, body.EmailConfirm}, {"phone", body.Phone, body.PhoneConfirm}} {
		var err error
		switch {
		case p.address != "":
			err = s.setAddress(ctx, tx, u, p.provider, p.address, p.confirm)
		case p.confirm:
			err = s.confirmAddress(ctx, tx, u, p.provider)
		}
		if err != nil {
			return err
		}
	}
	if body.Role != "" {
		if err := exec(ctx, tx, "user_set_role", u.ID, body.Role, now); err != nil {
			return err
		}
	}
	if hash != "" {
		if err := s.setPassword(ctx, tx, u, hash, uuid.Nil); err != nil {
			return err
		}
	}
	return s.setBan(ctx, tx, u.ID, ban)
}

// adminDelete answers DELETE /admin/users/{id}. A soft delete keeps the row and
// forgets whose it was.
func (s *Server) adminDelete(w http.ResponseWriter, r *http.Request) error {
	id, ok := parseUUID(r.PathValue("id"))
	if !ok {
		return errUserIDForm
	}
	var body struct {
		Soft bool `json:"should_soft_delete"`
	}
	if err := readOptionalBody(w, r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	err := s.inTx(ctx, func(tx pg.Tx) error {
		u, err := lockUser(ctx, tx, id)
		if err != nil {
			return notFound(err)
		}
		if body.Soft && u.DeletedAt != nil {
			return nil
		}
		if err := s.audit(ctx, tx, byAdmin(r), "user_deleted", s.clientOf(r), traitsOf(u)); err != nil {
			return err
		}
		if body.Soft {
			return s.softDelete(ctx, tx, u)
		}
		// Sessions first, in the order in which sign-outs lock them: the cascade
		// has no order.
		if err := exec(ctx, tx, "session_delete_all", id, uuid.Nil); err != nil {
			return err
		}
		return exec(ctx, tx, "user_delete", id)
	})
	if err != nil {
		return databaseError(err, errDeletingUser)
	}
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}

func (s *Server) softDelete(ctx context.Context, tx pg.Tx, u *user) error {
	now := s.cfg.Now()
	err := exec(ctx, tx, "user_soft_delete", u.ID, obscure(u.ID, u.Email), cutTo(obscure(u.ID, u.Phone), 15),
		obscure(u.ID, u.NewEmail), cutTo(obscure(u.ID, u.NewPhone), 15), now)
	if err != nil {
		return err
	}
	for _, i := range u.Identities {
		if err := exec(ctx, tx, "identity_forget", i.IdentityID, obscure(u.ID, i.ID), now); err != nil {
			return err
		}
	}
	for _, name := range []string{"one_time_token_delete_all", "factor_delete_all", "passkey_delete_all"} {
		if err := exec(ctx, tx, name, u.ID); err != nil {
			return err
		}
	}
	return s.endSessions(ctx, tx, u.ID, uuid.Nil)
}

// obscure replaces a value of a deleted user by what only its owner can find
// again. An empty one stays empty.
func obscure(id uuid.UUID, value string) string {
	if value == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(id.String() + value))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func cutTo(s string, n int) string { return s[:min(len(s), n)] }
