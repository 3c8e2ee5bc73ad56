package auth

import (
	"context"
	"errors"
	"net/http"

	"github.com/sluice-dev/sluice/pg"
)

// reauthenticate answers GET /reauthenticate: a code by mail or to the phone, with which PUT /user
// takes a new password.
func (s *Server) reauthenticate(w http.ResponseWriter, r *http.Request) error {
	c, err := s.caller(r)
	switch {
	case err != nil:
		return err
	case c.Email == "" && c.Phone == "":
		return errReauthAddress
	case c.Email != "" && c.EmailConfirmedAt == nil:
		return errReauthEmail
	case c.Email == "" && c.PhoneConfirmedAt == nil:
		return errReauthPhone
	}
	ctx := r.Context()
	var sent sentText
	err = s.inMailTx(ctx, func(tx pg.Tx) error {
		u, err := lockUser(ctx, tx, c.ID)
		if err != nil {
			return notFound(err)
		}
		if u.Email != "" {
			if err := s.spaced(ctx, tx, string(toReauthenticate), u.ID.String()); err != nil {
				return err
			}
		}
		if err := s.audit(ctx, tx, byUser(u), "user_reauthenticate_requested", s.clientOf(r), nil); err != nil {
			return err
		}
		if u.Email == "" {
			sent.ID, err = s.textCode(ctx, tx, u, toReauthenticate, u.Phone, "sms")
			return err
		}
		tok := s.newOneTime(u.Email, flow{})
		if err := s.storeOneTime(ctx, tx, u, toReauthenticate, tok); err != nil {
			return err
		}
		return s.send(ctx, tx, u, letter{template: "reauthentication", kind: "reauthentication", to: u.Email, token: tok})
	})
	if err != nil {
		return databaseError(err, errUpdatingUser)
	}
	writeJSON(w, http.StatusOK, sent)
	return nil
}

// checkNonce decides about the code from /reauthenticate. It stays good until the
// password is set, which voids every code of the user.
func (s *Server) checkNonce(ctx context.Context, c *caller, nonce string) error {
	address := c.name()
	if address == "" {
		return errNonce
	}
	var refused error
	err := s.inTx(ctx, func(tx pg.Tx) error {
		_, err := s.proveByCode(ctx, tx, c.ID, address, nonce, []purpose{toReauthenticate})
		if errors.Is(err, errCodeExpired) {
			refused = errNonce // committed: the guess counts
			return nil
		}
		return err
	})
	if err == nil {
		err = refused
	}
	return err
}
