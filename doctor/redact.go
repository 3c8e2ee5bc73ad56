package doctor

import (
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"github.com/sluice-dev/sluice"
)

// redactor takes secrets out of everything that is reported: those that are
// known by their value, and whatever has the form of a key or token.
type redactor struct {
	values []string // pairs for strings.NewReplacer
}

func newRedactor(cfg Config) *redactor {
	r := &redactor{}
	r.add(cfg.Key, cfg.LegacyKey, cfg.SecretKey, cfg.JWTSecret, cfg.Password, cfg.Token)
	for _, raw := range []string{cfg.URL, cfg.Page, string(cfg.DatabaseURL)} {
		if u, err := url.Parse(raw); err == nil && u.User != nil {
			if password, ok := u.User.Password(); ok {
				r.add(sluice.Secret(password))
			}
		}
	}
	return r
}

// add makes values unreadable from now on, in plain form and as a part of a URL.
func (r *redactor) add(secrets ...sluice.Secret) {
	for _, s := range secrets {
		// Shorter values would blot out words, as the development stack's public
		// password would; nothing that protects is so short.
		if len(s) < 5 || s == "postgres" {
			continue
		}
		shown := sluice.RedactKey(string(s))
		if shown == "other…" {
			shown = s.String()
		}
		r.values = append(r.values, string(s), shown)
		if escaped := url.QueryEscape(string(s)); escaped != string(s) {
			r.values = append(r.values, escaped, shown)
		}
	}
}

var (
	jwtForm = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*`)
	keyForm = regexp.MustCompile(`sb_(publishable|secret|temp)_[A-Za-z0-9_-]{5,}`)
	urlForm = regexp.MustCompile(`://[^/\s:@]*:[^/\s@]+@`)
)

func (r *redactor) text(s string) string {
	s = strings.NewReplacer(r.values...).Replace(s)
	s = jwtForm.ReplaceAllString(s, "jwt…")
	s = keyForm.ReplaceAllStringFunc(s, sluice.RedactKey)
	s = urlForm.ReplaceAllString(s, "://…@")
	// A server's text must not steer the terminal.
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, s)
}

func (r *redactor) finding(f Finding) Finding {
	f.Text, f.Evidence, f.Remedy = r.text(f.Text), r.text(f.Evidence), r.text(f.Remedy)
	return f
}
