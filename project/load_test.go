package project_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/project"
)

// folder writes a txtar archive into a fresh folder.
func folder(t testing.TB, archive string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "my app")
	if err := os.MkdirAll(filepath.Join(dir, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range txtar.Parse([]byte(archive)).Files {
		file := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoadWithoutFolder(t *testing.T) {
	t.Parallel()
	p, warnings, err := project.Load(folder(t, ""), nil)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("Load: %v, warnings %v", err, warnings)
	}
	c := p.Config
	if p.HasFolder || c.ProjectID != "my_app" || c.API.Port != 54321 || c.DB.Port != 54322 || c.API.MaxRows != 1000 {
		t.Errorf("defaults: %+v", c)
	}
	if c.Auth.JWTIssuer != "http://127.0.0.1:54321/auth/v1" || c.Auth.Email.EnableConfirmations || !c.Auth.EnableSignup {
		t.Errorf("auth defaults: %+v", c.Auth)
	}
}

func TestLoadValues(t *testing.T) {
	t.Parallel()
	dir := folder(t, `
-- supabase/config.toml --
project_id = "chat"
[api]
port = 6001
schemas = ["public", "api"]
[db]
port = "env(DB_PORT)"
health_timeout = "30s"
[db.settings]
work_mem = "8MB"
max_connections = 50
[auth]
site_url = "env(SITE)"
jwt_secret = "env(UNSET_SECRET_OF_SIXTEEN)"
enable_anonymous_sign_ins = true
[auth.email]
max_frequency = "2s"
[studio]
enabled = false
port = 1
-- supabase/.env --
DB_PORT=6002
SITE="http://site.example" # comment
-- .env --
SITE=http://far.example
SUPABASE_API_MAX_ROWS=7
`)
	p, warnings, err := project.Load(dir, []string{"SUPABASE_AUTH_ENABLE_SIGNUP=false", "SUPABASE_API_SCHEMAS=a, b"})
	if err != nil {
		t.Fatal(err)
	}
	c := p.Config
	got := []any{
		c.ProjectID, c.API.Port, c.DB.Port, time.Duration(c.DB.HealthTimeout), c.Auth.SiteURL, c.API.MaxRows, c.Auth.EnableSignup,
		c.Auth.EnableAnonymousSignIns, time.Duration(c.Auth.Email.MaxFrequency), c.API.Schemas, c.PostgresSettings(),
	}
	want := []any{
		"chat", 6001, 6002, 30 * time.Second, "http://site.example", 7, false,
		true, 2 * time.Second,
		[]string{"a", "b"},
		map[string]string{"work_mem": "8MB", "max_connections": "50"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0].String(), "UNSET_SECRET_OF_SIXTEEN is not set") {
		t.Errorf("warnings: %v", warnings)
	}
}

func TestLoadUnknownKeys(t *testing.T) {
	t.Parallel()
	_, warnings, err := project.Load(folder(t, `
-- supabase/config.toml --
[api]
prot = 1
[auth.emial]
enable_signup = true
[storage]
file_size_limit = "50MiB"
[functions.hello]
verify_jwt = false
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, w := range warnings {
		text = append(text, w.String())
	}
	all := strings.Join(text, "\n")
	for _, want := range []string{
		"api.prot: unknown key, ignored; did you mean api.port?",
		"auth.emial: unknown key, ignored; did you mean auth.email?",
		"storage: not served by Sluice",
		"functions: not served by Sluice; /functions/v1 answers 501",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning %q in:\n%s", want, all)
		}
	}
	if len(warnings) != 4 {
		t.Errorf("%d warnings:\n%s", len(warnings), all)
	}
}

func TestLoadMistakes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config string
		want   []string
	}{
		"syntax": {"[api\nport = 1", []string{"supabase/config.toml", "line 2, column 5"}},
		"type":   {"[api]\nport = \"many\"", []string{"api.port"}},
		"several": {
			"[api]\nport = 70000\n[auth]\njwt_expiry = 0\njwt_secret = \"short\"\npassword_requirements = \"x\"",
			[]string{"api.port: 70000", "auth.jwt_expiry", "auth.jwt_secret", "auth.password_requirements"},
		},
		"ports": {"[api]\nport = 5000\n[db]\nport = 5000", []string{"db.port: 5000 is also api.port"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := project.Load(folder(t, "-- supabase/config.toml --\n"+tt.config+"\n"), nil)
			if !errors.Is(err, sluice.ErrInvalid) {
				t.Fatalf("error %v", err)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
		})
	}
}

func TestMigrationsOrder(t *testing.T) {
	t.Parallel()
	p, _, err := project.Load(folder(t, `
-- supabase/migrations/20200101000000_init.sql --
-- supabase/migrations/2_b.sql --
-- supabase/migrations/10_a.sql --
-- supabase/migrations/notes.md --
-- supabase/migrations/sub/1_c.sql --
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	list, skipped, err := p.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range list {
		got = append(got, m.Version+" "+m.Name)
	}
	// 10 comes first, so the init file is no longer the first one.
	if d := cmp.Diff([]string{"10 a", "20200101000000 init", "2 b"}, got); d != "" {
		t.Error(d)
	}
	if len(skipped) != 1 || !strings.Contains(skipped[0], "notes.md") {
		t.Errorf("skipped: %v", skipped)
	}
}

func TestLoadMail(t *testing.T) {
	t.Parallel()
	dir := folder(t, `
-- supabase/config.toml --
[inbucket]
port = 7000
smtp_port = 7001
[auth.email]
otp_length = 8
max_frequency = "30s"
[auth.email.smtp]
host = "mail.example.com"
port = 587
user = "me"
pass = "env(MAIL_PASS)"
admin_email = "admin@example.com"
[auth.email.template.invite]
subject = "Come in"
content_path = "./supabase/templates/invite.html"
[auth.email.notification.password_changed]
enabled = true
[auth.rate_limit]
email_sent = 100
[auth.mfa.totp]
enroll_enabled = true
`)
	p, warnings, err := project.Load(dir, []string{"MAIL_PASS=secret", "SUPABASE_AUTH_EMAIL_SMTP_USER=other"})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || warnings[0].Key != "inbucket.smtp_port" {
		t.Errorf("warnings %v", warnings)
	}
	a := p.Config.Auth
	want := project.AuthSMTP{Host: "mail.example.com", Port: 587, User: "other", Pass: "secret", AdminEmail: "admin@example.com"}
	if diff := cmp.Diff(want, a.Email.SMTP); diff != "" || !a.Email.SMTP.On() {
		t.Errorf("smtp (-want +got):\n%s", diff)
	}
	mails := map[string]project.AuthMail{"invite": {Subject: "Come in", ContentPath: "./supabase/templates/invite.html"}}
	if diff := cmp.Diff(mails, a.Email.Template); diff != "" {
		t.Errorf("templates (-want +got):\n%s", diff)
	}
	if !a.Email.Notification["password_changed"].Enabled || a.Email.OTPLength != 8 || time.Duration(a.Email.MaxFrequency) != 30*time.Second ||
		a.RateLimit.EmailSent != 100 || a.RateLimit.TokenRefresh != 150 || !a.MFA.TOTP.EnrollEnabled || a.MFA.MaxEnrolledFactors != 10 {
		t.Errorf("auth %+v", a)
	}
	off := false
	if (project.AuthSMTP{Enabled: &off, Host: "x"}).On() || (project.AuthSMTP{}).On() {
		t.Error("a server that is off is used")
	}

	_, _, err = project.Load(folder(t, `
-- supabase/config.toml --
[inbucket]
port = 54321
[auth.email]
otp_length = 5
otp_expiry = 100000
max_frequency = "-1s"
[auth.email.smtp]
enabled = true
`), nil)
	if !errors.Is(err, sluice.ErrInvalid) {
		t.Fatalf("error is of no kind: %v", err)
	}
	for _, key := range []string{"inbucket.port", "auth.email.otp_length", "auth.email.otp_expiry", "auth.email.max_frequency", "auth.email.smtp.host", "auth.email.smtp.admin_email", "auth.email.smtp.port"} {
		if !strings.Contains(err.Error(), key+":") {
			t.Errorf("%s is not reported: %v", key, err)
		}
	}
}
