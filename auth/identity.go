package auth

import (
	"context"
	"net/http"
	"slices"

	"github.com/sluice-dev/sluice/pg"
)

// linker is the caller of what links or unlinks identities. They are credentials, and
// a user's address goes with them: who has a second factor shows it.
func (s *Server) linker(r *http.Request) (*caller, error) {
	c, err := s.caller(r)
	switch {
	case err != nil:
		return nil, err
	case !s.cfg.EnableManualLinking:
		return nil, errManualLinking
	case c.hasVerifiedFactor() && !c.aal2():
		return nil, errLinkAAL
	}
	return c, nil
}

// linkIdentity answers GET /user/identities/authorize: the address of a provider,
// from which the caller comes back with one identity more.
func (s *Server) linkIdentity(w http.ResponseWriter, r *http.Request) error {
	c, err := s.linker(r)
	if err != nil {
		return err
	}
	address, err := s.beginOAuth(r, c.ID)
	if err != nil {
		return err
	}
	if r.URL.Query().Get("skip_http_redirect") != "true" {
		return sendTo(w, r, http.StatusFound, address)
	}
	writeJSON(w, http.StatusOK, struct {
		URL string `json:"url"`
	}{address})
	return nil
}

// unlinkIdentity answers DELETE /user/identities/{id}. The last one stays.
func (s *Server) unlinkIdentity(w http.ResponseWriter, r *http.Request) error {
	c, err := s.linker(r)
	switch {
	case err != nil:
		return err
	case !c.meant(r):
		return errUnlinkAudience
	}
	id, ok := parseUUID(r.PathValue("identity"))
	if !ok {
		return errIdentityID
	}
	ctx := r.Context()
	var gone identity
	err = s.inTx(ctx, func(tx pg.Tx) error {
		u, err := lockUser(ctx, tx, c.ID)
		if err != nil {
			return notFound(err)
		}
		if len(u.Identities) <= 1 {
			return errLastIdentity
		}
		i := slices.IndexFunc(u.Identities, func(i identity) bool { return i.IdentityID == id })
		if i < 0 {
			return errNoIdentity
		}
		gone = u.Identities[i]
		if err := exec(ctx, tx, "identity_delete", id, u.ID); err != nil {
			return err
		}
		u.Identities = slices.Delete(u.Identities, i, i+1)
		if err := s.withoutIdentity(ctx, tx, u, gone.Provider); err != nil {
			return err
		}
		if err := s.syncProviders(ctx, tx, u); err != nil {
			return err
		}
		return s.audit(ctx, tx, byUser(u), "identity_unlinked", s.clientOf(r),
			map[string]any{"identity_id": id, "provider": gone.Provider, "provider_id": gone.ID})
	})
	switch {
	case uniqueViolation(err) == "users_email_partial_key":
		return errUnlinkEmail.because(err)
	case err != nil:
		return databaseError(err, errUpdatingUser)
	}
	s.notify(ctx, c.user, letter{template: "identity_unlinked", to: c.Email, provider: gone.Provider})
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}

// withoutIdentity adjusts the addresses of a user who has lost an identity.
func (s *Server) withoutIdentity(ctx context.Context, tx pg.Tx, u *user, provider string) error {
	now := s.cfg.Now()
	if provider == "phone" {
		return exec(ctx, tx, "user_forget_phone", u.ID, now)
	}
	if u.Email == "" || slices.ContainsFunc(u.Identities, func(i identity) bool { return i.Email == u.Email }) {
		return nil
	}
	// Verified ones first, the oldest first: they are sorted by age.
	var next identity
	for _, i := range u.Identities {
		if i.Email != "" && (next.Email == "" || i.verified() && !next.verified()) {
			next = i
		}
	}
	if next.Email != "" {
		if other, err := findUser(ctx, tx, next.Email, "", u.Aud); err != nil {
			return err
		} else if other != nil && other.ID != u.ID {
			return errUnlinkEmail
		}
	}
	if err := exec(ctx, tx, "one_time_token_delete_all", u.ID); err != nil {
		return err
	}
	return exec(ctx, tx, "user_promote_email", u.ID, next.Email, next.verified() || s.cfg.EmailAutoconfirm, now)
}

// verified reports whether the provider said that it verified the address.
func (i identity) verified() bool { return string(i.Data["email_verified"]) == "true" }
