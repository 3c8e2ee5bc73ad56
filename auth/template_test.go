package auth_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/sluice-dev/sluice/auth"
)

// spec: auth:102 auth-sec:51
func TestTemplates(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "magic.html")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, func(c *auth.Config) {
		c.Templates = map[string]auth.Template{"magic_link": {Subject: "{{ .Data.name }}: {{ .Token }}{{ .Unknown }}", Path: file}}
	})
	s.do("POST", "/signup", object{"email": "a@example.com", "password": password, "data": object{"name": "Tom & <b>Jerry</b>\r\nBcc: x@example.com"}}).ok(200)
	ask := func() letter {
		s.clock.pass(2 * time.Second)
		s.do("POST", "/otp?redirect_to=https://app.example.com/a", object{"email": "a@example.com"}).ok(200)
		return s.letter("a@example.com")
	}

	write(`{{ .SiteURL }}|{{ .Token }}|{{ .TokenHash }}|{{ .Email }}|{{ .NewEmail }}|{{ .SendingTo }}|{{ .Data.name }}|{{ .RedirectTo }}|` +
		`{{ .Unknown }}|{{ .Data.unknown }}|{{ if .Data.name }}yes{{ end }}|<a href="{{ .ConfirmationURL }}">x</a>|` +
		`<a href="{{ .SiteURL }}/auth/confirm?token_hash={{ .TokenHash }}&type=email">y</a>`)
	l := ask()
	part := strings.Split(l.HTML, "|")
	code := part[1]
	same(t, "subject", l.Subject, "Tom & <b>Jerry</b>  Bcc: x@example.com: "+code)
	hash := l.hash(t)
	same(t, "body", l.HTML, "http://127.0.0.1:3000|"+code+"|"+hash+"|a@example.com||a@example.com|Tom &amp; &lt;b&gt;Jerry&lt;/b&gt;\r\nBcc: x@example.com|https://app.example.com/a|||yes|"+
		`<a href="http://127.0.0.1:54321/auth/v1/verify?token=`+hash+`&amp;type=magiclink&amp;redirect_to=https://app.example.com/a">x</a>|`+
		`<a href="http://127.0.0.1:3000/auth/confirm?token_hash=`+hash+`&type=email">y</a>`)
	same(t, "code", auth.HashCode(s.keys, "a@example.com", code), hash)

	// A change of the file shows at once; what cannot be used gives way.
	write("changed")
	same(t, "body", ask().HTML, "changed")
	for _, broken := range []string{"{{ .Token", "{{ .Data.name.x }}", "{{ template \"none\" }}", strings.Repeat("x", 1<<20+1)} {
		write(broken)
		if l := ask(); !strings.Contains(l.HTML, "Follow this link to sign in") || l.link == "" {
			t.Errorf("%.20q: %s", broken, l.HTML)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if l := ask(); l.link == "" {
		t.Error("a missing file stops mails")
	}
	if !strings.Contains(s.log.String(), "a mail template cannot be used") {
		t.Error("nobody is warned")
	}

	broken := s.serve(func(c *auth.Config) {
		c.Templates = map[string]auth.Template{"magic_link": {Subject: "{{ .Nope"}, "odd": {}}
	})
	subject, _, err := broken.Render("magic_link", map[string]any{})
	same(t, "subject", subject, "Your sign-in link")
	if err != nil || !strings.Contains(s.log.String(), "there is no such mail") {
		t.Error(err, "an unknown name is not reported")
	}
}

func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"{{ .Token }}", "{{ if .Data.x }}a{{ end }}", "{{ range .Data }}{{ . }}{{ end }}", "<a href='{{ .ConfirmationURL }}'>", "{{", "{{ define \"x\" }}{{ end }}"} {
		f.Add(seed, "v")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if len(text) > 2000 || strings.Contains(text, "range") || strings.Contains(text, "template") {
			return // loops and recursion take their time
		}
		vars := map[string]any{"Token": value, "ConfirmationURL": value, "Data": map[string]any{"x": value}}
		out, err := auth.Fill(text, vars)
		if err != nil {
			return
		}
		line := auth.OneLine(out)
		if len(line) > 500 || strings.ContainsFunc(line, unicode.IsControl) {
			t.Fatalf("subject %q", line)
		}
	})
}
