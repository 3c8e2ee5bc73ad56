package auth

import (
	"context"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/pg"
)

// newUser is what a row of auth.users is made from. None of it but meta comes
// from a user's request unchecked.
type newUser struct {
	id           uuid.UUID
	aud          string
	role         string // default: the audience of the project
	email, phone string
	provider     string
	hash         string
	app, meta    metadata
	anonymous    bool
	flow         flow   // of the client that signs up
	channel      string // of the message to its phone
}

// insertUser makes the row as triggers on auth.users expect it: the role comes
// by an update of its own.
func (s *Server) insertUser(ctx context.Context, tx pg.Tx, n newUser) error {
	now := s.cfg.Now()
	if err := s.beforeUser(ctx, tx, n); err != nil {
		return err
	}
	err := exec(ctx, tx, "user_insert", n.id, n.aud, n.email, n.phone, n.hash, n.app.json(), n.meta.json(), n.anonymous, now)
	if err != nil {
		return err
	}
	if n.role == "" {
		n.role = s.cfg.Aud
	}
	return exec(ctx, tx, "user_set_role", n.id, n.role, now)
}

// createUser makes a user with an address and the identity of it, unconfirmed.
func (s *Server) createUser(ctx context.Context, tx pg.Tx, n newUser) (*user, error) {
	n.app = providerMetadata(n.provider)
	if err := s.insertUser(ctx, tx, n); err != nil {
		return nil, err
	}
	data := identityData(n.id, n.email, false)
	if err := exec(ctx, tx, "identity_insert", n.id.String(), n.id, data.json(), n.provider, s.cfg.Now()); err != nil {
		return nil, err
	}
	meta := n.meta.merge(data)
	if err := meta.check(); err != nil {
		return nil, err
	}
	if err := exec(ctx, tx, "user_set_user_metadata", n.id, meta.json(), s.cfg.Now()); err != nil {
		return nil, err
	}
	u, err := loadUser(ctx, tx, n.id)
	if err != nil {
		return nil, err
	}
	return u, s.afterUser(ctx, tx, u)
}

// beforeUser lets the project's hook refuse a user who is about to be made.
func (s *Server) beforeUser(ctx context.Context, tx pg.Tx, n newUser) error {
	now := s.cfg.Now().UTC()
	_, err := s.ask(ctx, tx, hookBeforeUser, map[string]any{"user": &user{
		ID: n.id, Aud: n.aud, Role: n.role, Email: n.email, Phone: n.phone, AppMetadata: n.app.merge(nil), UserMetadata: n.meta.merge(nil),
		Identities: []identity{}, CreatedAt: now, UpdatedAt: now, IsAnonymous: n.anonymous,
	}}, &struct{}{})
	return err
}

// afterUser tells the project's hook about a user who was made.
func (s *Server) afterUser(ctx context.Context, tx pg.Tx, u *user) error {
	_, err := s.ask(ctx, tx, hookAfterUser, map[string]any{"user": u}, &struct{}{})
	return err
}

// confirm takes a user's address as proved.
func (s *Server) confirm(ctx context.Context, tx pg.Tx, id uuid.UUID, provider string, meta metadata) error {
	if err := exec(ctx, tx, "one_time_token_delete_all", id); err != nil {
		return err
	}
	meta = meta.set(provider+"_verified", true)
	return exec(ctx, tx, "user_confirm_"+provider, id, s.cfg.Now(), meta.json())
}

// identityData is what the identity of an address holds. A phone's does not hold
// the number.
func identityData(id uuid.UUID, email string, verified bool) metadata {
	data := metadata{}.set("sub", id).set("email_verified", verified).set("phone_verified", false)
	if email != "" {
		data = data.set("email", email)
	}
	return data
}

// providerMetadata is the app_metadata of a user with these providers, the main
// one first.
func providerMetadata(providers ...string) metadata {
	return metadata{}.set("provider", providers[0]).set("providers", providers)
}

// addProvider notes that u now has an identity of provider, and returns u's
// app_metadata, which lists the providers.
func addProvider(u *user, provider string) metadata {
	all := make([]string, 0, len(u.Identities)+1)
	for _, i := range u.Identities {
		if i.Provider == provider {
			return u.AppMetadata
		}
		all = append(all, i.Provider)
	}
	u.Identities = append(u.Identities, identity{Provider: provider})
	u.AppMetadata = u.AppMetadata.merge(providerMetadata(append(all, provider)...))
	return u.AppMetadata
}
