package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// Keys signs access tokens and publishes what verifies them.
type Keys interface {
	// Sign returns a compact JWT over claims with the current signing key.
	Sign(claims map[string]any) (string, error)
	// JWKS returns the public keys as a JSON object; symmetric keys are not in it.
	JWKS() []byte
	// MAC authenticates text by a key that only the project has.
	MAC(text string) []byte
}

// Config describes Auth. The zero value of a switch is off; what the Supabase
// CLI has on by default (EnableSignup, EnableEmail, EmailAutoconfirm,
// RefreshTokenRotation) is for the caller to set.
type Config struct {
	// Pool logs in as supabase_auth_admin, the owner of schema auth. Required.
	Pool *pg.Pool
	// Keys is the project's keyring. Required.
	Keys Keys
	// Logger receives failures and what looks like an attack. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Version is shown by /health. Default "dev".
	Version string

	// ExternalURL is the public URL of Auth, such as
	// http://127.0.0.1:54321/auth/v1. Required.
	ExternalURL string
	// Issuer is the claim iss. Default ExternalURL.
	Issuer string
	// SiteURL is where links and failed redirects lead.
	// Default http://127.0.0.1:3000.
	SiteURL string
	// Aud is the audience and the role of users. Default "authenticated".
	Aud string
	// AdminRoles may use /admin. Default service_role and supabase_admin.
	AdminRoles []string
	// JWTExpiry is the life of an access token. Default 1 h, at most 7 days.
	JWTExpiry time.Duration

	// EnableSignup lets new users in; without it only admins create them.
	EnableSignup bool
	// EnableAnonymous lets users in without address or password.
	EnableAnonymous bool
	// AnonymousLife deletes users without address who have not been there for that
	// long, and all that hangs on them by foreign keys. 0 is never.
	AnonymousLife time.Duration
	// EnableEmail is the email provider: sign-up and sign-in with it.
	EnableEmail bool
	// EmailAutoconfirm takes a new address as confirmed. Without it a sign-up
	// waits for the link or the code of a mail.
	EmailAutoconfirm bool
	// EnablePhone is the phone provider, PhoneAutoconfirm as for email.
	EnablePhone, PhoneAutoconfirm bool

	// Providers are where users may sign in besides, by name: one that is known, or
	// custom:NAME. EnableManualLinking lets users add and remove identities.
	Providers           map[string]Provider
	EnableManualLinking bool

	// Mailer delivers mail. nil is none: what needs a mail fails with 500 and
	// stores nothing.
	Mailer Mailer
	// RedirectURLs are the targets of links, besides those on the site, as globs.
	RedirectURLs []string
	// MailInterval is the shortest time between two mails of a kind to one
	// address. 0 is none; the original's is 60 s, the Supabase CLI's 1 s.
	MailInterval time.Duration
	// CodeLength is how many digits a code has, 6 to 10, default 6. CodeExpiry is
	// how long codes and links live, default 1 h.
	CodeLength int
	CodeExpiry time.Duration
	// DoubleConfirmChanges asks the old address too when a new one is set.
	DoubleConfirmChanges bool
	// Templates are the project's own mails by name (confirmation, invite,
	// magic_link, recovery, email_change, reauthentication) and the notifications
	// (password_changed, email_changed, phone_changed, identity_linked,
	// identity_unlinked, mfa_factor_enrolled, mfa_factor_unenrolled) that are sent.
	Templates map[string]Template

	// Hooks are called at custom_access_token, before_user_created,
	// after_user_created, password_verification_attempt, mfa_verification_attempt,
	// send_email, which delivers mails in the Mailer's place, and send_sms.
	Hooks map[string]Hook

	// MinPasswordLength in characters of new passwords. Default and minimum 6.
	MinPasswordLength int
	// PasswordRequirements names the characters that a new password must have:
	// "", letters_digits, lower_upper_letters_digits or
	// lower_upper_letters_digits_symbols.
	PasswordRequirements string
	// RefuseBreached refuses new passwords that are on haveibeenpwned.com's list, which
	// sees the first five digits of their SHA-1. BreachedURL is where it is.
	RefuseBreached bool
	BreachedURL    string
	// SecurePasswordChange asks for reauthentication when the session is older
	// than 24 h; RequireCurrentPassword asks for the old password.
	SecurePasswordChange, RequireCurrentPassword bool

	// EnableTOTPEnroll lets users add an authenticator app as second factor,
	// EnableTOTPVerify sign in with one. MaxFactors of a user, default 10.
	EnableTOTPEnroll, EnableTOTPVerify bool
	MaxFactors                         int

	// RefreshTokenVersion is the format of new refresh tokens, 1 or 2; both are
	// accepted. Default 2, which needs no row for each token.
	RefreshTokenVersion int
	// RefreshTokenRotation ends the session when a used token comes back.
	RefreshTokenRotation bool
	// ReuseInterval is how long a used token is still answered, for tabs and
	// servers that refresh at once. 0 is none; the Supabase CLI uses 10 s.
	ReuseInterval time.Duration
	// SessionTimebox ends a session that long after sign-in, SessionInactivity
	// that long after its last refresh. 0 is never. Both show at a refresh.
	SessionTimebox, SessionInactivity time.Duration
	// SingleSession lets a refresh pass for the user's newest session alone.
	SingleSession bool

	// Captcha is asked before sign-ups, sign-ins by password, and what sends mails
	// or messages. Default none.
	Captcha Captcha

	// SMS describes messages to phones.
	SMS SMS
	// EnablePhoneEnroll and EnablePhoneVerify let phones be second factors, to which
	// PhoneFactor describes the messages: Template, Interval, CodeLength.
	EnablePhoneEnroll, EnablePhoneVerify bool
	PhoneFactor                          SMS

	// RateLimits bounds requests of one address. Off by default, as in the
	// Supabase CLI's stack.
	RateLimits RateLimits
	// TrustedProxies may name the client in X-Forwarded-For. Default none.
	TrustedProxies []netip.Prefix
	// RequestTimeout bounds one request. Default 10 s.
	RequestTimeout time.Duration
	// HashWorkers bounds the passwords hashed at the same time, HashQueue those
	// that wait; further ones are refused. Default one for each core but one, and 512.
	HashWorkers, HashQueue int
}

// RateLimits are requests of one address; 0 is no limit. Each allows a burst of
// 30 and refills evenly. Email is different: it counts the mails of all nodes, and
// does not count while new addresses need no confirmation.
type RateLimits struct {
	SignInSignUp int // in 5 minutes; signup, otp, magiclink, recover, resend and PUT user, each by itself
	Token        int // in 5 minutes
	Verify       int // in 5 minutes
	Anonymous    int // in an hour
	MFA          int // in a minute; challenge and verify, each by itself
	Email        int // in an hour
	SMS          int // in an hour; messages to phones, counted like mails
}

const (
	maxJWTExpiry  = 7 * 24 * time.Hour
	minPassword   = 6
	defaultExpiry = time.Hour
)

// complete fills in defaults and reports every mistake.
func (c Config) complete() (Config, error) {
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.Pool == nil {
		mistake("auth: Pool is missing")
	}
	if c.Keys == nil {
		mistake("auth: Keys is missing")
	} else if !json.Valid(c.Keys.JWKS()) {
		mistake("auth: Keys.JWKS is not JSON")
	}
	if c.Logger == nil {
		mistake("auth: Logger is missing")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if u, err := url.Parse(c.ExternalURL); err != nil || u.Scheme == "" || u.Host == "" {
		mistake("auth: ExternalURL %q is not a URL with scheme and host", c.ExternalURL)
	}
	c.ExternalURL = strings.TrimRight(c.ExternalURL, "/")
	if c.Issuer == "" {
		c.Issuer = c.ExternalURL
	}
	if c.SiteURL == "" {
		c.SiteURL = "http://127.0.0.1:3000"
	}
	if c.Aud == "" {
		c.Aud = "authenticated"
	}
	if len(c.AdminRoles) == 0 {
		c.AdminRoles = []string{"service_role", "supabase_admin"}
	}
	switch {
	case c.JWTExpiry == 0:
		c.JWTExpiry = defaultExpiry
	case c.JWTExpiry < time.Second || c.JWTExpiry > maxJWTExpiry:
		mistake("auth: JWTExpiry %s is not between 1s and %s", c.JWTExpiry, maxJWTExpiry)
	}
	c.MinPasswordLength = max(c.MinPasswordLength, minPassword)
	if c.MinPasswordLength > maxPassword {
		mistake("auth: MinPasswordLength %d is more than the %d bytes that bcrypt reads", c.MinPasswordLength, maxPassword)
	}
	if _, ok := requirements[c.PasswordRequirements]; !ok {
		mistake("auth: PasswordRequirements %q is not known", c.PasswordRequirements)
	}
	switch c.RefreshTokenVersion {
	case 0:
		c.RefreshTokenVersion = 2
	case 1, 2:
	default:
		mistake("auth: RefreshTokenVersion %d is neither 1 nor 2", c.RefreshTokenVersion)
	}
	if min(c.ReuseInterval, c.SessionTimebox, c.SessionInactivity, c.RequestTimeout, c.MailInterval, c.CodeExpiry, c.AnonymousLife) < 0 {
		mistake("auth: a duration is negative")
	}
	if l := c.RateLimits; min(l.SignInSignUp, l.Token, l.Verify, l.Anonymous, l.MFA, l.Email, l.SMS) < 0 {
		mistake("auth: a rate limit is negative")
	}
	switch {
	case c.CodeLength == 0:
		c.CodeLength = 6
	case c.CodeLength < 6 || c.CodeLength > 10:
		mistake("auth: CodeLength %d is not between 6 and 10", c.CodeLength)
	}
	for _, m := range []*SMS{&c.SMS, &c.PhoneFactor} {
		if m.CodeLength == 0 {
			m.CodeLength = 6
		}
		if m.CodeExpiry == 0 {
			m.CodeExpiry = defaultTextExpiry
		}
		if m.CodeLength < 6 || m.CodeLength > 10 || m.CodeExpiry < 0 || m.Interval < 0 {
			mistake("auth: SMS: %d digits, life %s, interval %s: 6 to 10 digits, and no negative time", m.CodeLength, m.CodeExpiry, m.Interval)
		}
	}
	c.SMS.TestCodes = testCodes(c.SMS.TestCodes)
	if c.MaxFactors <= 0 {
		c.MaxFactors = 10
	}
	if c.CodeExpiry == 0 {
		c.CodeExpiry = defaultExpiry
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 10 * time.Second
	}
	if c.HashWorkers <= 0 {
		c.HashWorkers = defaultHashWorkers()
	}
	if c.HashQueue <= 0 {
		c.HashQueue = 512
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("%w: %w", sluice.ErrInvalid, err)
	}
	return c, nil
}

// defaultHashWorkers leaves a core to everything else: see BenchmarkUserWhileSignIns.
func defaultHashWorkers() int { return max(1, runtime.GOMAXPROCS(0)-1) }
