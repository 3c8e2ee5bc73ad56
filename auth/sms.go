package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"text/template"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

// Texter delivers messages to phones. Send returns when the message is taken over; id
// is how the service calls it.
type Texter interface {
	Send(ctx context.Context, m Text) (id string, err error)
}

// Text is a message to a phone.
type Text struct {
	To      string // E.164 without "+"
	Body    string
	Channel string // sms or whatsapp
}

// SMS describes messages to phones.
type SMS struct {
	// Texter delivers them, unless there is the hook send_sms. nil is none: what
	// needs a message fails with 500 and stores nothing.
	Texter Texter
	// Provider is the name of the service, which /settings shows.
	Provider string
	// WhatsApp tells that Texter takes that channel too.
	WhatsApp bool
	// Template is the text, where {{ .Code }} is the code.
	// Default "Your code is {{ .Code }}".
	Template string
	// Interval is the shortest time between two messages of a kind to one number.
	// 0 is none; the original's is 60 s, the Supabase CLI's 5 s.
	Interval time.Duration
	// CodeLength is how many digits a code has, 6 to 10, default 6. CodeExpiry is
	// how long it lives, default 60 s.
	CodeLength int
	CodeExpiry time.Duration
	// TestCodes are the codes of numbers that get no message.
	TestCodes map[string]string
}

const (
	defaultText       = "Your code is {{ .Code }}"
	defaultTextExpiry = time.Minute
	// testMessage is the id of a message that was not sent.
	testMessage = "test-otp"
)

// errNoTexter is the cause of a failed message where nobody sends any.
var errNoTexter = errors.New("nobody sends messages: there is no service in [auth.sms] and no hook send_sms")

// textTemplate parses the text of messages; one that cannot be used gives way to the
// default.
func (s *Server) textTemplate(text string) *template.Template {
	t, err := template.New("message").Parse(text)
	if err == nil {
		err = t.Execute(&strings.Builder{}, map[string]string{"Code": "000000"})
	}
	if text != "" && err == nil {
		return t
	}
	if err != nil {
		s.cfg.Logger.Warn("auth: the template of messages cannot be used; the default is", "template", text, "error", err)
	}
	return template.Must(template.New("message").Parse(defaultText))
}

// testCodes are numbers and codes as they are compared.
func testCodes(codes map[string]string) map[string]string {
	out := make(map[string]string, len(codes))
	for number, code := range codes {
		if phone, err := phoneOf(number); err == nil {
			out[phone] = code
		}
	}
	return out
}

// isPhone tells a number from a mail address, which has an "@".
func isPhone(address string) bool { return address != "" && !strings.Contains(address, "@") }

// channelOf checks the channel of a request.
func (s *Server) channelOf(channel string) (string, error) {
	switch {
	case channel == "", channel == "sms":
		return "sms", nil
	case channel == "whatsapp" && s.cfg.SMS.WhatsApp:
		return channel, nil
	}
	return "", errChannel
}

// textCode sends the user a code to a number, in place of the last one for the same
// purpose. A number of the tests gets its own code, and no message.
func (s *Server) textCode(ctx context.Context, tx pg.Tx, u *user, p purpose, phone, channel string) (id string, err error) {
	if err := s.spacedText(ctx, tx, string(p), phone, s.cfg.SMS.Interval); err != nil {
		return "", err
	}
	tok := s.newTextCode(phone, s.cfg.SMS.CodeLength)
	if p == toChangePhone {
		err = exec(ctx, tx, "user_phone_change_sent", u.ID, tok.hash, s.cfg.Now(), phone)
	} else {
		err = exec(ctx, tx, storeSent[p], u.ID, tok.hash, s.cfg.Now())
	}
	if err != nil {
		return "", err
	}
	if err := s.setOneTime(ctx, tx, u.ID, p, tok, phone); err != nil {
		return "", err
	}
	return s.text(ctx, tx, u, phone, tok.code, channel, textKinds[p], s.textBody)
}

// textKinds name a message in the error of its delivery.
var textKinds = map[purpose]string{toConfirm: "confirmation", toChangePhone: "phone_change", toReauthenticate: "reauthentication"}

func (s *Server) newTextCode(phone string, length int) oneTime {
	code := s.cfg.SMS.TestCodes[phone]
	if code == "" {
		code = newCode(length)
	}
	return oneTime{code, s.hashCode(phone, code)}
}

// text delivers a code. The server's limit counts what is delivered: the caller's
// transaction rolls back when it fails.
func (s *Server) text(ctx context.Context, tx pg.Tx, u *user, phone, code, channel, kind string, body *template.Template) (id string, err error) {
	if s.cfg.SMS.TestCodes[phone] != "" {
		return testMessage, nil
	}
	if s.cfg.RateLimits.SMS > 0 && !s.cfg.PhoneAutoconfirm {
		each := time.Hour / time.Duration(s.cfg.RateLimits.SMS)
		switch wait, err := s.take(ctx, tx, "sms", each, s.cfg.RateLimits.SMS-1); {
		case err != nil:
			return "", err
		case wait > 0:
			return "", errTextLimit
		}
	}
	if s.hooks[hookSMS] != nil {
		_, err := s.ask(ctx, tx, hookSMS, map[string]any{
			"user": u, "sms": map[string]any{"otp": code, "phone": phone, "sms_type": channel},
		}, &struct{}{})
		return "", err
	}
	if s.cfg.SMS.Texter == nil {
		return "", errNoSMSProvider.because(errNoTexter)
	}
	var out strings.Builder
	if err := body.Execute(&out, map[string]string{"Code": code}); err != nil {
		return "", errUnexpected.because(err)
	}
	id, err = s.cfg.SMS.Texter.Send(ctx, Text{To: phone, Body: out.String(), Channel: channel})
	if err != nil {
		return "", errSendingText.with(kind, publicReason(err)).because(err)
	}
	return id, nil
}

// TextError is why a service did not take a message over, in words that may be shown
// to who asked for it.
type TextError struct{ Reason string }

func (e *TextError) Error() string { return e.Reason }

// publicReason is what the client is told about a failed delivery.
func publicReason(err error) string {
	var e *TextError
	if errors.As(err, &e) {
		return e.Reason
	}
	return "the service cannot be reached"
}

// spacedText lets one message of a kind to a number pass in an interval.
func (s *Server) spacedText(ctx context.Context, tx pg.Tx, kind, phone string, interval time.Duration) error {
	if interval <= 0 {
		return nil
	}
	sum := sha256.Sum256([]byte(phone))
	wait, err := s.take(ctx, tx, "sms:"+kind+":"+hex.EncodeToString(sum[:]), interval, 0)
	if err == nil && wait > 0 {
		err = errTextInterval.with(int(wait / time.Second))
	}
	return err
}

// sentText is the answer to who asked for a message.
type sentText struct {
	ID string `json:"message_id,omitempty"`
}

// textSignIn answers POST /otp for a number: a code that signs in who has the phone.
// Who is new is made first.
func (s *Server) textSignIn(w http.ResponseWriter, r *http.Request, body *otpBody) error {
	channel, err := s.channelOf(body.Channel)
	if err != nil {
		return err
	}
	phone, err := phoneOf(body.Phone)
	if err != nil {
		return err
	}
	ctx := r.Context()
	n := newUser{id: uuid.New(), aud: s.audience(r), phone: phone, provider: "phone", hash: unknownHash(), meta: body.Data}
	u, err := findUser(ctx, s.cfg.Pool, "", phone, n.aud)
	switch {
	case err != nil:
		return err
	case u == nil && body.CreateUser != nil && !*body.CreateUser:
		return errOTPDisabled
	case u == nil && !s.maySignUp(n.aud):
		return errSignupDisabled
	}
	var sent sentText
	err = s.inMailTx(ctx, func(tx pg.Tx) error {
		if u, err = s.userForLink(ctx, tx, u, n, s.clientOf(r)); err != nil {
			return err
		}
		if err := s.audit(ctx, tx, byUser(u), "user_recovery_requested", s.clientOf(r), map[string]any{"channel": channel}); err != nil {
			return err
		}
		sent.ID, err = s.textCode(ctx, tx, u, toConfirm, phone, channel)
		return err
	})
	if uniqueViolation(err) == "users_phone_key" {
		err = nil // another request made the user, and sends
	}
	if err != nil {
		return databaseError(err, errSavingNewUser)
	}
	writeJSON(w, http.StatusOK, sent)
	return nil
}

// textConfirmation sends the code of a sign-up and returns the user as it is then.
func (s *Server) textConfirmation(ctx context.Context, tx pg.Tx, r *http.Request, u *user, channel string) (*user, error) {
	traits := map[string]any{"provider": "phone"}
	if err := s.audit(ctx, tx, byUser(u), "user_confirmation_requested", s.clientOf(r), traits); err != nil {
		return u, err
	}
	if _, err := s.textCode(ctx, tx, u, toConfirm, u.Phone, channel); err != nil {
		return u, err
	}
	return loadUser(ctx, tx, u.ID)
}

// resendText answers POST /resend for a number. That there is nothing to send is not
// told, and is refused as often.
func (s *Server) resendText(w http.ResponseWriter, r *http.Request, kind string, body *otpBody) error {
	channel, err := s.channelOf(body.Channel)
	if err != nil {
		return err
	}
	phone, err := phoneOf(body.Phone)
	if err != nil {
		return err
	}
	p, ctx := toConfirm, r.Context()
	if kind == "phone_change" {
		p = toChangePhone
	}
	id, err := s.userOfText(ctx, phone, kind, s.audience(r))
	if err != nil && !errors.Is(err, errCodeExpired) {
		return err
	}
	var sent sentText
	err = s.inMailTx(ctx, func(tx pg.Tx) error {
		to := phone
		var u *user
		if id != uuid.Nil {
			if u, err = lockUser(ctx, tx, id); err != nil {
				return notFound(err)
			}
			if p == toChangePhone {
				to = u.NewPhone
			}
			if p == toConfirm && u.PhoneConfirmedAt != nil || to == "" {
				u = nil
			}
		}
		if u == nil {
			return s.spacedText(ctx, tx, string(p), phone, s.cfg.SMS.Interval)
		}
		sent.ID, err = s.textCode(ctx, tx, u, p, to, channel)
		return err
	})
	if err != nil {
		return databaseError(err, errUpdatingUser)
	}
	writeJSON(w, http.StatusOK, sent)
	return nil
}

// userOfText finds whom a code was sent to: the user of the number, or the one who
// wants to change to it.
func (s *Server) userOfText(ctx context.Context, phone, kind, aud string) (id uuid.UUID, err error) {
	names := []string{"user_id_by_phone"}
	if kind == "phone_change" {
		names = []string{"user_id_by_phone_change", "user_id_by_phone"}
	}
	for _, name := range names {
		err = s.cfg.Pool.QueryRow(ctx, sql(name), phone, aud).Scan(&id)
		if !errors.Is(err, pgx.ErrNoRows) {
			return id, pg.Wrap(err, "%s", name)
		}
	}
	return uuid.Nil, errCodeExpired
}

// useText uses the digits of a message.
func (s *Server) useText(r *http.Request, body *verifyBody) (*outcome, error) {
	phone, err := phoneOf(body.Phone)
	if err != nil {
		return nil, err
	}
	accepted := map[string][]purpose{"sms": {toConfirm}, "phone_change": {toChangePhone}}[body.Type]
	if accepted == nil {
		return nil, errCodeExpired
	}
	id, err := s.userOfText(r.Context(), phone, body.Type, s.audience(r))
	if err != nil {
		return nil, err
	}
	return s.useToken(r, body.Type, false, func(ctx context.Context, tx pg.Tx) (*proof, error) {
		return s.proveByCode(ctx, tx, id, phone, body.Token, accepted)
	})
}

// acceptPhone takes the number as proved, and what else was pending as void.
func (s *Server) acceptPhone(ctx context.Context, tx pg.Tx, u *user, from client) error {
	action := "login"
	if u.PhoneConfirmedAt == nil {
		action = "user_signedup"
		if err := exec(ctx, tx, "identity_phone_verified", u.ID, s.cfg.Now()); err != nil {
			return err
		}
		if err := s.confirmAddress(ctx, tx, u, "phone"); err != nil {
			return err
		}
	}
	if err := exec(ctx, tx, "one_time_token_delete_all", u.ID); err != nil {
		return err
	}
	if err := exec(ctx, tx, "user_tokens_clear", u.ID, s.cfg.Now()); err != nil {
		return err
	}
	return s.audit(ctx, tx, byUser(u), action, from, map[string]any{"provider": "phone"})
}

// acceptPhoneChange applies a new number.
func (s *Server) acceptPhoneChange(ctx context.Context, tx pg.Tx, u *user, from client) error {
	if err := s.setAddress(ctx, tx, u, "phone", u.NewPhone, true); err != nil {
		return err
	}
	u.Phone = u.NewPhone
	return s.audit(ctx, tx, byUser(u), "user_modified", from, nil)
}
