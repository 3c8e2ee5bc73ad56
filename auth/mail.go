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
	kind     string // type of its link, or what it is about where there is none
	link     string // ConfirmationURL; empty where there is none
	token    oneTime
	current  oneTime // of the current address, where a hook mails both at once
	redirect string
	newEmail string
	oldEmail string
	oldPhone string
	provider string // that was linked or unlinked
	factor   string // type of what was added or removed
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
	err := s.deliver(ctx, tx, u, l)
	if err != nil && !errors.As(err, new(*apiError)) {
		return errSendingMail.with(strings.ReplaceAll(l.template, "_", " ")).because(err)
	}
	return err
}

// deliver hands a mail to the project's hook, or else writes it and hands it to the
// Mailer.
func (s *Server) deliver(ctx context.Context, tx pg.Tx, u *user, l letter) error {
	if s.hooks[hookMail] != nil {
		_, err := s.ask(ctx, tx, hookMail, map[string]any{"user": u, "email_data": s.mailData(l)}, &struct{}{})
		return err
	}
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
		"OldPhone":        l.oldPhone,
		"Provider":        l.provider,
		"FactorType":      l.factor,
	})
	if err != nil {
		return err
	}
	return s.cfg.Mailer.Send(ctx, sluice.Mail{To: l.to, Subject: subject, HTML: html})
}

// mailData is what a hook mails. Of two tokens, the names are crossed: token and
// token_hash_new are of the current address, token_new and token_hash of the new one.
func (s *Server) mailData(l letter) map[string]any {
	data := map[string]any{
		"token": l.token.code, "token_hash": l.token.hash, "token_new": "", "token_hash_new": "", "redirect_to": l.redirect,
		"email_action_type": l.kind, "site_url": s.cfg.ExternalURL, "old_email": l.oldEmail, "old_phone": l.oldPhone, "provider": l.provider, "factor_type": l.factor,
	}
	if l.current.hash != "" {
		data["token"], data["token_new"], data["token_hash_new"] = l.current.code, l.token.code, l.current.hash
	}
	return data
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
	l.kind = l.template + "_notification"
	err := s.inTx(ctx, func(tx pg.Tx) error { return s.deliver(ctx, tx, u, l) })
	if err != nil {
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
		template: m.template, kind: m.kind, to: u.Email, token: tok, redirect: redirect,
		link: s.linkTo(tok.hash, m.kind, redirect),
	})
}
