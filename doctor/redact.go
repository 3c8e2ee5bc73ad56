package doctor

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
)

// redactor takes secrets out of everything that is reported: those that are
// known by their value, and whatever has the form of a key or token. A text is
// redacted before it is cut: half a secret is not recognised.
type redactor struct {
	values [][2]string // what, and what is shown in its place; the longest first
}

func newRedactor(cfg Config) *redactor {
	r := &redactor{}
	r.add(cfg.Key, cfg.LegacyKey, cfg.SecretKey, cfg.JWTSecret, cfg.Password, cfg.Token, cfg.DatabaseURL)
	for _, raw := range []string{cfg.URL, cfg.Page, string(cfg.DatabaseURL)} {
		r.addURL(raw)
	}
	if db, err := pgx.ParseConfig(string(cfg.DatabaseURL)); err == nil && cfg.DatabaseURL != "" {
		r.add(sluice.Secret(db.Password)) // the string may have another form than a URL
	}
	return r
}

// secretName is the name of a parameter that holds a secret.
var secretName = regexp.MustCompile(`(?i)token|key|secret|passw|code|jwt`)

// addURL adds the secrets of a URL: its password, and parameters whose names say
// so, in the query or behind the #.
func (r *redactor) addURL(raw string) {
	u, err := url.Parse(raw)
	if err != nil {
		return
	}
	if password, has := u.User.Password(); has {
		r.add(sluice.Secret(password))
		_, escaped, _ := strings.Cut(u.User.String(), ":")
		r.add(sluice.Secret(escaped))
	}
	for _, query := range []string{u.RawQuery, u.Fragment} {
		params, _ := url.ParseQuery(query) // what can be read of it
		for name, values := range params {
			for _, v := range values {
				if secretName.MatchString(name) {
					r.add(sluice.Secret(v))
				}
			}
		}
	}
}

// add makes values unreadable from now on, in plain form and in those in which
// servers and errors repeat them.
func (r *redactor) add(secrets ...sluice.Secret) {
	for _, secret := range secrets {
		s := string(secret)
		// Shorter values would blot out words, as the development stack's public
		// password would; nothing that protects is so short.
		if len(s) < 5 || s == "postgres" {
			continue
		}
		shown := sluice.RedactKey(s)
		if shown == "other…" {
			shown = secret.String()
		}
		inJSON, _ := json.Marshal(s) // a string
		inGo := strconv.Quote(s)
		for _, form := range []string{
			s, url.QueryEscape(s), url.PathEscape(s), html.EscapeString(s), string(inJSON[1 : len(inJSON)-1]), inGo[1 : len(inGo)-1],
			base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s)),
		} {
			if pair := [2]string{form, shown}; !slices.Contains(r.values, pair) {
				r.values = append(r.values, pair)
			}
		}
	}
	slices.SortStableFunc(r.values, func(a, b [2]string) int { return cmp.Compare(len(b[0]), len(a[0])) })
}

var (
	jwtForm   = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{4,}(\.[A-Za-z0-9_-]*){0,2}`)
	keyForm   = regexp.MustCompile(`sb_(publishable|secret|temp)_[A-Za-z0-9_-]{5,}`)
	urlForm   = regexp.MustCompile(`://[^/\s:@]*:[^/\s@]+@`)
	fieldForm = regexp.MustCompile(`(?i)("(?:access_token|refresh_token|id_token|provider_token|provider_refresh_token|token_hash|password)"\s*:\s*")[^"]*`)
)

func (r *redactor) text(s string) string {
	pairs := make([]string, 0, 2*len(r.values))
	for _, v := range r.values {
		pairs = append(pairs, v[0], v[1])
	}
	s = strings.NewReplacer(pairs...).Replace(s)
	s = jwtForm.ReplaceAllString(s, "jwt…")
	s = keyForm.ReplaceAllStringFunc(s, sluice.RedactKey)
	s = urlForm.ReplaceAllString(s, "://…@")
	s = fieldForm.ReplaceAllString(s, "${1}…")
	// A server's text must not steer the terminal.
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, s)
}

// cut is text, shortened to n bytes.
func (r *redactor) cut(s string, n int) string { return shorten(r.text(s), n) }

func (r *redactor) finding(f Finding) Finding {
	f.Text, f.Evidence, f.Remedy = r.text(f.Text), r.text(f.Evidence), r.text(f.Remedy)
	f.Code = sluice.Code(r.text(string(f.Code))) // a server may have named it
	return f
}

// withoutSecrets is a URL as it may be shown: no user, parameters or fragment.
func withoutSecrets(u *url.URL) string { return u.Scheme + "://" + u.Host + u.EscapedPath() }
