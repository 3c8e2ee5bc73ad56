package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// Mailer delivers mail: by SMTP, or into the development's mail catcher. Send
// returns when the message is taken over; an error means that it was not, and what
// the mail was to confirm is not stored then.
type Mailer interface {
	Send(ctx context.Context, m sluice.Mail) error
}

// errNoMailer is the cause of a failed delivery where none is configured.
var errNoMailer = errors.New("no SMTP server is configured ([auth.email.smtp]) and the mail catcher is off ([inbucket])")

// mailsAtOnce bounds the transactions that wait for a mail server, so that a slow
// one does not take every connection of the pool.
const mailsAtOnce = 4

// inMailTx is inTx for what may send a mail before it commits.
func (s *Server) inMailTx(ctx context.Context, fn func(tx pg.Tx) error) error {
	select {
	case s.mailing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.mailing }()
	return s.inTx(ctx, fn)
}

// letter is one mail: a template and what is filled in.
type letter struct {
	template string
	to       string
	link     string // ConfirmationURL; empty where there is none
	token    oneTime
	redirect string
	newEmail string
	oldEmail string
}

// send writes a mail and hands it over. The server's limit counts what is handed
// over: the caller's transaction rolls back when it fails.
func (s *Server) send(ctx context.Context, tx pg.Tx, u *user, l letter) error {
	if s.cfg.RateLimits.Email > 0 && !s.cfg.EmailAutoconfirm {
		each := time.Hour / time.Duration(s.cfg.RateLimits.Email)
		switch wait, err := s.take(ctx, tx, "mail", each, s.cfg.RateLimits.Email-1); {
		case err != nil:
			return err
		case wait > 0:
			return errMailLimit
		}
	}
	if err := s.deliver(ctx, u, l); err != nil {
		return errSendingMail.with(strings.ReplaceAll(l.template, "_", " ")).because(err)
	}
	return nil
}

func (s *Server) deliver(ctx context.Context, u *user, l letter) error {
	if s.cfg.Mailer == nil {
		return errNoMailer
	}
	subject, html, err := s.templates.render(l.template, map[string]any{
		"SiteURL":         s.cfg.SiteURL,
		"ConfirmationURL": l.link,
		"Token":           l.token.code,
		"TokenHash":       l.token.hash,
		"Email":           u.Email,
		"NewEmail":        l.newEmail,
		"OldEmail":        l.oldEmail,
		"SendingTo":       l.to,
		"Data":            u.UserMetadata.values(),
		"RedirectTo":      l.redirect,
		"Phone":           u.Phone,
	})
	if err != nil {
		return err
	}
	return s.cfg.Mailer.Send(ctx, sluice.Mail{To: l.to, Subject: subject, HTML: html})
}

// notify tells a user about a change that is done. A mail that cannot be sent does
// not undo it.
func (s *Server) notify(ctx context.Context, u *user, l letter) {
	if !s.templates.notifies(l.template) || l.to == "" {
		return
	}
	select {
	case s.mailing <- struct{}{}:
		defer func() { <-s.mailing }()
	case <-ctx.Done():
		return
	}
	if err := s.deliver(ctx, u, l); err != nil {
		s.cfg.Logger.Warn("auth: a notification was not sent", "mail", l.template, "user", u.ID, sluice.LogError, err)
	}
}

// linkTo is the address in a mail that verifies a token. The target is encoded
// where it would otherwise be cut or changed.
func (s *Server) linkTo(hash, kind, redirect string) string {
	if strings.ContainsAny(redirect, "&=#%+") {
		redirect = url.QueryEscape(redirect)
	}
	return s.cfg.ExternalURL + "/verify?token=" + hash + "&type=" + kind + "&redirect_to=" + redirect
}

// spaced lets one mail of a kind to an address, or to a user, pass in the
// configured interval. Addresses without a user count as well, so that the answer
// does not tell them apart.
func (s *Server) spaced(ctx context.Context, tx pg.Tx, kind, whom string) error {
	if s.cfg.MailInterval <= 0 {
		return nil
	}
	sum := sha256.Sum256([]byte(whom))
	wait, err := s.take(ctx, tx, kind+":"+hex.EncodeToString(sum[:]), s.cfg.MailInterval, 0)
	if err == nil && wait > 0 {
		err = errMailInterval.with(int(wait / time.Second))
	}
	return err
}

// mailing is a mail with a link that signs its reader in.
type mailing struct {
	purpose  purpose
	template string
	kind     string // type of the link
	method   string // claim amr of a PKCE flow
}

var (
	confirmationMail = mailing{toConfirm, "confirmation", "signup", "email/signup"}
	inviteMail       = mailing{toConfirm, "invite", "invite", "invite"}
	magicLinkMail    = mailing{toRecover, "magic_link", "magiclink", "magiclink"}
	recoveryMail     = mailing{toRecover, "recovery", "recovery", "recovery"}
)

// sendLink replaces the user's token of the mailing's purpose and mails the new
// one.
func (s *Server) sendLink(ctx context.Context, tx pg.Tx, u *user, m mailing, f flow, redirect string) error {
	tok := s.newOneTime(u.Email, f)
	if err := s.storeOneTime(ctx, tx, u, m.purpose, tok); err != nil {
		return err
	}
	if err := s.beginFlow(ctx, tx, u.ID, f, m.method); err != nil {
		return err
	}
	return s.send(ctx, tx, u, letter{
		template: m.template, to: u.Email, token: tok, redirect: redirect,
		link: s.linkTo(tok.hash, m.kind, redirect),
	})
}
