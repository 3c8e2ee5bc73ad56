package auth

import (
	"context"

	"github.com/sluice-dev/sluice/pg"
)

// requestEmailChange mails what proves a new address, and where both addresses
// must agree, what the old one agrees with. Nothing changes until then.
func (s *Server) requestEmailChange(ctx context.Context, tx pg.Tx, u *user, email string, f flow, redirect string) error {
	if err := s.spaced(ctx, tx, "email_change", u.ID.String()); err != nil {
		return err
	}
	forNew := s.newOneTime(email, f)
	var forCurrent oneTime
	if s.cfg.DoubleConfirmChanges && u.Email != "" {
		forCurrent = s.newOneTime(u.Email, f)
	}
	if err := s.storeEmailChange(ctx, tx, u, email, forNew, forCurrent); err != nil {
		return err
	}
	if err := s.beginFlow(ctx, tx, u.ID, f, "email_change"); err != nil {
		return err
	}
	l := letter{
		template: "email_change", kind: "email_change", to: email, token: forNew, redirect: redirect, newEmail: email,
		link: s.linkTo(forNew.hash, "email_change", redirect),
	}
	if s.hooks[hookMail] != nil {
		l.current = forCurrent
		return s.send(ctx, tx, u, l)
	}
	if err := s.send(ctx, tx, u, l); err != nil || forCurrent.hash == "" {
		return err
	}
	l.to, l.token, l.link = u.Email, forCurrent, s.linkTo(forCurrent.hash, "email_change", redirect)
	return s.send(ctx, tx, u, l)
}

// storeEmailChange begins a change anew. A token without hash is not there.
func (s *Server) storeEmailChange(ctx context.Context, tx pg.Tx, u *user, email string, forNew, forCurrent oneTime) error {
	err := exec(ctx, tx, "user_email_change_sent", u.ID, email, forNew.hash, forCurrent.hash, s.cfg.Now())
	if err != nil {
		return err
	}
	for _, t := range []struct {
		p       purpose
		tok     oneTime
		address string
	}{{toChangeNew, forNew, email}, {toChangeCurrent, forCurrent, u.Email}} {
		if t.tok.hash == "" {
			err = exec(ctx, tx, "one_time_token_delete", u.ID, string(t.p))
		} else {
			err = s.setOneTime(ctx, tx, u.ID, t.p, t.tok, t.address)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// acceptEmailChange takes the confirmation of one address. Where both must agree,
// the first one is half of it.
func (s *Server) acceptEmailChange(ctx context.Context, tx pg.Tx, p *proof, from client) (half bool, err error) {
	u := p.user
	if s.cfg.DoubleConfirmChanges && !s.cfg.EmailAutoconfirm && u.Email != "" && u.emailChangeStatus == 0 {
		if err := exec(ctx, tx, "one_time_token_delete", u.ID, string(p.purpose)); err != nil {
			return true, err
		}
		return true, exec(ctx, tx, "user_email_change_half", u.ID, string(p.purpose), s.cfg.Now())
	}
	if u.NewEmail == "" {
		return false, errLinkExpired
	}
	if err := s.setAddress(ctx, tx, u, "email", u.NewEmail, true); err != nil {
		return false, err
	}
	u.Email = u.NewEmail
	return false, s.audit(ctx, tx, byUser(u), "user_modified", from, nil)
}

// addressChanged tells a user whose address or number is another one now, if that is
// wanted: of a new address, the old one. u is the user before.
func (s *Server) addressChanged(ctx context.Context, u *user) {
	after := *u
	if u.NewEmail != "" {
		after.Email = u.NewEmail
		s.notify(ctx, &after, letter{template: "email_changed", to: u.Email, oldEmail: u.Email})
		return
	}
	after.Phone = u.NewPhone
	s.notify(ctx, &after, letter{template: "phone_changed", to: u.Email, oldPhone: u.Phone})
}
