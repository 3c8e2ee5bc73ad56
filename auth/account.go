package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

// accounts finds the account that somebody whom a provider knows belongs to, within
// one transaction.
type accounts struct {
	s        *Server
	tx       pg.Tx
	r        *http.Request
	provider string
	who      *profile
}

// unconfirmed asks for a confirmation first. What was stored stays.
type unconfirmed struct{ answer *apiError }

func (e *unconfirmed) Error() string { return e.answer.Error() }

// inAccountTx is inTx for what finds an account. It sends a mail only about an address
// that must be confirmed.
func (s *Server) inAccountTx(ctx context.Context, who *profile, fn func(tx pg.Tx) error) error {
	if who.email().verified || s.cfg.EmailAutoconfirm {
		return s.inTx(ctx, fn)
	}
	return s.inMailTx(ctx, fn)
}

// signIn returns the user of the profile: the one whose identity it is, the one who
// has the address, if the provider says that it is verified, or a new one.
//
// Under autoconfirm the original takes every address as verified here, also for an
// account that is there. We do not: who claims an address must not get its account.
func (a *accounts) signIn(ctx context.Context) (*user, error) {
	u, err := a.known(ctx)
	if u == nil && err == nil {
		if u, err = a.sameAddress(ctx); u != nil {
			err = a.add(ctx, u)
		}
	}
	if u == nil && err == nil {
		u, err = a.create(ctx)
	}
	switch {
	case err != nil:
		return nil, err
	case u.banned(a.s.cfg.Now()):
		return nil, errBannedBearer
	case u.confirmed():
		return u, a.audit(ctx, u, "login")
	}
	return a.prove(ctx, u)
}

func (a *accounts) audit(ctx context.Context, u *user, action string) error {
	return a.s.audit(ctx, a.tx, byUser(u), action, a.s.clientOf(a.r), map[string]any{"provider": a.provider})
}

// owner is the user whose identity the profile is.
func (a *accounts) owner(ctx context.Context) (id uuid.UUID, found bool, err error) {
	err = a.tx.QueryRow(ctx, sql("identity_owner"), a.provider, a.who.subject).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return id, false, nil
	}
	return id, err == nil, pg.Wrap(err, "identity_owner")
}

// known returns the user whose identity the profile is, and takes over what the
// provider says now; nil for an identity that is new.
func (a *accounts) known(ctx context.Context) (*user, error) {
	id, found, err := a.owner(ctx)
	if err != nil || !found {
		return nil, err
	}
	u, err := lockUser(ctx, a.tx, id)
	if err != nil {
		return nil, notFound(err)
	}
	if err := exec(ctx, a.tx, "identity_refresh", a.provider, a.who.subject, a.who.data.json(), a.s.cfg.Now()); err != nil {
		return nil, err
	}
	return u, a.takeData(ctx, u)
}

// takeData merges what the provider says into user_metadata.
func (a *accounts) takeData(ctx context.Context, u *user) error {
	u.UserMetadata = u.UserMetadata.merge(a.who.data)
	if err := u.UserMetadata.check(); err != nil {
		return err
	}
	return exec(ctx, a.tx, "user_set_user_metadata", u.ID, u.UserMetadata.json(), a.s.cfg.Now())
}

// sameAddress returns the user who has one of the verified addresses, as its own or
// verified by another provider; nil where there is none.
func (a *accounts) sameAddress(ctx context.Context) (*user, error) {
	var verified []string
	for _, e := range a.who.emails {
		if e.verified {
			verified = append(verified, e.address)
		}
	}
	if verified == nil {
		return nil, nil
	}
	rows, _ := a.tx.Query(ctx, sql("user_ids_by_verified_email"), verified, a.s.cfg.Aud) // its error is also the rows'
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	switch {
	case err != nil:
		return nil, pg.Wrap(err, "user_ids_by_verified_email")
	case len(ids) == 0:
		return nil, nil
	case len(ids) > 1:
		return nil, errManyAccounts.because(fmt.Errorf("%d users have an address of this %s identity", len(ids), a.provider))
	}
	u, err := lockUser(ctx, a.tx, ids[0])
	return u, notFound(err)
}

// add makes the profile an identity of u.
func (a *accounts) add(ctx context.Context, u *user) error {
	if err := a.insert(ctx, u.ID); err != nil {
		return err
	}
	if err := a.takeData(ctx, u); err != nil {
		return err
	}
	if err := a.s.syncProviders(ctx, a.tx, u); err != nil {
		return err
	}
	return a.audit(ctx, u, "identity_linked")
}

func (a *accounts) insert(ctx context.Context, id uuid.UUID) error {
	return exec(ctx, a.tx, "identity_insert", a.who.subject, id, a.who.data.json(), a.provider, a.s.cfg.Now())
}

// create makes a user without password. An address that somebody has stays his: who
// did not prove it gets none.
func (a *accounts) create(ctx context.Context) (*user, error) {
	if !a.s.cfg.EnableSignup {
		return nil, errSignupDisabled
	}
	n := newUser{
		id: uuid.New(), aud: a.s.cfg.Aud, email: a.who.email().address, provider: a.provider,
		app: providerMetadata(a.provider), meta: a.who.data,
	}
	if n.email != "" {
		other, err := findUser(ctx, a.tx, n.email, "", n.aud)
		if err != nil {
			return nil, err
		}
		if other != nil {
			n.email = ""
		}
	}
	if err := a.s.insertUser(ctx, a.tx, n); err != nil {
		return nil, err
	}
	if err := a.insert(ctx, n.id); err != nil {
		return nil, err
	}
	u, err := loadUser(ctx, a.tx, n.id)
	if err != nil {
		return nil, err
	}
	return u, a.s.afterUser(ctx, a.tx, u)
}

// prove decides about a user who has confirmed nothing so far. Whoever signed up
// with the address before need not be who owns it: password, identities, sessions and
// factors of before are gone.
func (a *accounts) prove(ctx context.Context, u *user) (*user, error) {
	email := a.who.email()
	if err := a.disarm(ctx, u.ID); err != nil {
		return nil, err
	}
	switch {
	case email.verified && email.address != u.Email:
		// Confirmed is what the provider says, not what stood there before.
		if other, err := findUser(ctx, a.tx, email.address, "", u.Aud); err != nil || other != nil {
			return nil, errors.Join(err, errEmailExists)
		}
		if err := exec(ctx, a.tx, "user_set_email", u.ID, email.address, a.s.cfg.Now()); err != nil {
			return nil, err
		}
	case email.verified, a.s.cfg.EmailAutoconfirm, email.address == "":
	default:
		return nil, a.askConfirmation(ctx, u)
	}
	if err := a.s.confirm(ctx, a.tx, u.ID, "email", a.who.data); err != nil {
		return nil, err
	}
	u, err := loadUser(ctx, a.tx, u.ID)
	if err != nil {
		return nil, err
	}
	return u, a.audit(ctx, u, "user_signedup")
}

// disarm takes from a user all that is not of the profile.
func (a *accounts) disarm(ctx context.Context, id uuid.UUID) error {
	if err := a.s.endSessions(ctx, a.tx, id, uuid.Nil); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		args []any
	}{
		{"identity_delete_others", []any{id, a.provider, a.who.subject}},
		{"factor_delete_all", []any{id}},
		{"one_time_token_delete_all", []any{id}},
		{"user_disarm", []any{id, a.who.data.json(), a.s.cfg.Now()}},
	} {
		if err := exec(ctx, a.tx, step.name, step.args...); err != nil {
			return err
		}
	}
	u, err := loadUser(ctx, a.tx, id)
	if err != nil {
		return err
	}
	return a.s.syncProviders(ctx, a.tx, u)
}

// askConfirmation mails a user whose address the provider did not verify.
func (a *accounts) askConfirmation(ctx context.Context, u *user) error {
	if u.Email == "" {
		return &unconfirmed{errVerifyThere.with(a.provider, a.provider)}
	}
	u, err := loadUser(ctx, a.tx, u.ID) // as it was left
	if err != nil {
		return err
	}
	if _, err := a.s.mailConfirmation(ctx, a.tx, a.r, u, flow{}); err != nil {
		return err
	}
	return &unconfirmed{errVerifyMailed.with(a.provider, a.provider)}
}

// link makes the profile an identity of a user who is signed in. One without an
// address takes the profile's, which makes an anonymous user permanent.
func (a *accounts) link(ctx context.Context, id uuid.UUID) (*user, error) {
	u, err := lockUser(ctx, a.tx, id)
	if err != nil {
		return nil, notFound(err)
	}
	if u.banned(a.s.cfg.Now()) {
		return nil, errBannedBearer
	}
	switch owner, found, err := a.owner(ctx); {
	case err != nil:
		return nil, err
	case found && owner == id:
		return nil, errIdentityLinked
	case found:
		return nil, errIdentityTaken
	}
	if err := a.add(ctx, u); err != nil {
		return nil, err
	}
	if u.Email != "" {
		return u, nil
	}
	email := a.who.email()
	if email.address == "" {
		return u, a.s.makePermanent(ctx, a.tx, u)
	}
	if err := a.s.addressesFree(ctx, u, email.address, ""); err != nil {
		return nil, err
	}
	if err := exec(ctx, a.tx, "user_set_email", u.ID, email.address, a.s.cfg.Now()); err != nil {
		return nil, err
	}
	u.Email = email.address
	if !email.verified && !a.s.cfg.EmailAutoconfirm {
		return nil, a.askConfirmation(ctx, u)
	}
	return u, a.s.confirmAddress(ctx, a.tx, u, "email")
}

// acceptInvite signs in who was invited by mail, and came back by way of a provider
// that knows the invited address.
func (a *accounts) acceptInvite(ctx context.Context, token string) (*user, error) {
	p, err := a.s.proveByHash(ctx, a.tx, token, []purpose{toConfirm})
	if errors.Is(err, errLinkExpired) {
		return nil, errInviteGone
	}
	if err != nil {
		return nil, err
	}
	invited := false
	for _, e := range a.who.emails {
		invited = invited || e.address == p.user.Email
	}
	if !invited {
		return nil, errInviteAddress
	}
	switch _, found, err := a.owner(ctx); {
	case err != nil:
		return nil, err
	case found:
		return nil, errIdentityTaken
	}
	if err := a.add(ctx, p.user); err != nil {
		return nil, err
	}
	if err := a.disarm(ctx, p.user.ID); err != nil {
		return nil, err
	}
	if err := a.s.confirm(ctx, a.tx, p.user.ID, "email", a.who.data); err != nil {
		return nil, err
	}
	u, err := loadUser(ctx, a.tx, p.user.ID)
	if err != nil {
		return nil, err
	}
	return u, a.audit(ctx, u, "invite_accepted")
}

// syncProviders writes the providers of u's identities into its app_metadata, the
// oldest one first.
func (s *Server) syncProviders(ctx context.Context, tx pg.Tx, u *user) error {
	var all []string
	rows, _ := tx.Query(ctx, sql("identity_providers"), u.ID) // its error is also the rows'
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return pg.Wrap(err, "identity_providers")
	}
	if len(all) == 0 {
		u.AppMetadata = u.AppMetadata.set("providers", []string{})
	} else {
		u.AppMetadata = u.AppMetadata.merge(providerMetadata(all...))
	}
	return exec(ctx, tx, "user_set_app_metadata", u.ID, u.AppMetadata.json(), s.cfg.Now())
}
