package auth

import (
	"context"
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"
	"time"

	mail "github.com/wneessen/go-mail"

	"github.com/sluice-dev/sluice"
)

// SMTPConfig says how to reach a mail server and who the sender is.
type SMTPConfig struct {
	// Host and Port of the server. Required. Port 465 is TLS from the first byte;
	// on every other one TLS is used when the server offers it.
	Host string
	Port int
	// User and Password; both empty is no authentication. They are sent over TLS
	// alone, or to a server on this machine.
	User     string
	Password sluice.Secret
	// From is the sender's address, SenderName the name before it. From is required.
	From, SenderName string
}

// smtpTimeout bounds one delivery, within the request's own deadline.
const smtpTimeout = 8 * time.Second

// SMTP delivers to a mail server, on a connection for each message.
type SMTP struct {
	cfg    SMTPConfig
	client *mail.Client
}

// NewSMTP checks cfg. It does no I/O.
func NewSMTP(cfg SMTPConfig) (*SMTP, error) {
	options := []mail.Option{
		mail.WithPort(cfg.Port), mail.WithTimeout(smtpTimeout), mail.WithTLSPolicy(mail.TLSOpportunistic),
	}
	if cfg.Port == 465 {
		options = append(options, mail.WithSSL())
	}
	if cfg.User != "" || cfg.Password != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover),
			mail.WithUsername(cfg.User), mail.WithPassword(string(cfg.Password)))
	}
	client, err := mail.NewClient(cfg.Host, options...)
	if err != nil {
		return nil, fmt.Errorf("mail server %s:%d: %w: %w", cfg.Host, cfg.Port, err, sluice.ErrInvalid)
	}
	s := &SMTP{cfg, client}
	if _, err := s.message(sluice.Mail{To: cfg.From}); err != nil {
		return nil, fmt.Errorf("sender %q <%s>: %w: %w", cfg.SenderName, cfg.From, err, sluice.ErrInvalid)
	}
	return s, nil
}

// String names the server, without the password.
func (s *SMTP) String() string { return "mail server " + s.cfg.Host }

// Send delivers one message.
func (s *SMTP) Send(ctx context.Context, m sluice.Mail) error {
	msg, err := s.message(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, smtpTimeout)
	defer cancel()
	if err := s.client.DialAndSendWithContext(ctx, msg); err != nil {
		return fmt.Errorf("deliver to %s:%d: %w", s.cfg.Host, s.cfg.Port, err)
	}
	return nil
}

// errHeader refuses what would begin a header of its own.
var errHeader = errors.New("a line break in a mail header")

func (s *SMTP) message(m sluice.Mail) (*mail.Msg, error) {
	for _, v := range []string{s.cfg.From, s.cfg.SenderName, m.To, m.Subject} {
		if strings.ContainsAny(v, "\r\n\x00") {
			return nil, errHeader
		}
	}
	msg := mail.NewMsg()
	if err := msg.From(s.cfg.From); err != nil {
		return nil, fmt.Errorf("sender: %w", err)
	}
	msg.FromMailAddress(&netmail.Address{Name: s.cfg.SenderName, Address: s.cfg.From})
	if err := msg.To(m.To); err != nil {
		return nil, fmt.Errorf("recipient: %w", err)
	}
	msg.Subject(m.Subject)
	msg.SetBodyString(mail.TypeTextHTML, m.HTML)
	return msg, nil
}
