package auth

import (
	"embed"
	"errors"
	"fmt"
	"html"
	"html/template"
	"io"
	"log/slog"
	"maps"
	"os"
	"strings"
	"unicode"

	"github.com/sluice-dev/sluice"
)

// Template is the project's own text of a mail.
type Template struct {
	// Subject is a template of one line; empty is the default's.
	Subject string
	// Path is the file with the HTML template; empty is the default's. It is read
	// for every mail, so that a change shows without a restart.
	Path string
	// Enabled sends a notification (password_changed, …); the other mails are
	// always sent.
	Enabled bool
}

// subjects are the mails that there are, with their default subjects; the HTML is
// templates/NAME.html.
var subjects = map[string]string{
	"confirmation":     "Confirm your email address",
	"invite":           "You've been invited",
	"magic_link":       "Your sign-in link",
	"recovery":         "Reset your password",
	"email_change":     "Confirm your new email address",
	"reauthentication": "{{ .Token }} is your verification code",
	"password_changed": "Your password has been changed",
	"email_changed":    "Your email address has been changed",

	"identity_linked":   "A new way to sign in was added",
	"identity_unlinked": "A way to sign in was removed",

	"phone_changed":         "Your phone number has been changed",
	"mfa_factor_enrolled":   "A second factor was added",
	"mfa_factor_unenrolled": "A second factor was removed",
}

//go:embed templates/*.html
var templateFiles embed.FS

// maxTemplate bounds a template file, maxSubject a written subject, in bytes.
const (
	maxTemplate = 1 << 20
	maxSubject  = 500
)

// templates writes mails. A template of the project that cannot be read or used
// gives way to the default, with a warning.
type templates struct {
	own map[string]Template
	log *slog.Logger
}

func (t *templates) notifies(name string) bool { return t.own[name].Enabled }

// render returns subject and HTML of a mail. Unknown variables are empty.
func (t *templates) render(name string, vars map[string]any) (subject, body string, err error) {
	own := t.own[name]
	subject, err = fill(own.Subject, vars)
	if own.Subject == "" || err != nil {
		t.warn(name, err)
		if subject, err = fill(subjects[name], vars); err != nil {
			return "", "", err
		}
	}
	if own.Path != "" {
		if body, err = fillFile(own.Path, vars); err == nil {
			return oneLine(subject), body, nil
		}
		t.warn(name, err)
	}
	text, err := templateFiles.ReadFile("templates/" + name + ".html")
	if err != nil {
		return "", "", fmt.Errorf("read mail template %q: %w", name, err)
	}
	body, err = fill(string(text), vars)
	return oneLine(subject), body, err
}

func (t *templates) warn(name string, err error) {
	if err != nil {
		t.log.Warn("auth: a mail template cannot be used, the default is", "mail", name, sluice.LogError, err)
	}
}

func fillFile(path string, vars map[string]any) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTemplate+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxTemplate {
		return "", fmt.Errorf("%s has more than %d bytes", path, maxTemplate)
	}
	return fill(string(text), vars)
}

var errLongMail = errors.New("the mail becomes too long")

// fill executes a template; html/template escapes each value for its place.
func fill(text string, vars map[string]any) (string, error) {
	t, err := template.New("mail").Parse(text)
	if err != nil {
		return "", err
	}
	var out boundedText
	if err := t.Execute(&out, maps.Clone(vars)); err != nil {
		return "", err
	}
	return out.String(), nil
}

// boundedText refuses to grow without end: templates have loops.
type boundedText struct{ strings.Builder }

func (b *boundedText) Write(p []byte) (int, error) {
	if b.Len()+len(p) > 4*maxTemplate {
		return 0, errLongMail
	}
	return b.Builder.Write(p)
}

// oneLine makes a header's value of a filled subject, which is no HTML. A line
// break in it could begin another header.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, html.UnescapeString(s))
	s = strings.TrimSpace(s)
	if len(s) > maxSubject {
		s = strings.ToValidUTF8(s[:maxSubject], "")
	}
	return s
}
