package project_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/project"
)

func lines[T interface{ String() string }](all []T) (out []string) {
	for _, x := range all {
		out = append(out, x.String())
	}
	return out
}

// TestWrongTypes: each value of a wrong type is named with its key, all at once,
// and warnings are not lost over them.
func TestWrongTypes(t *testing.T) {
	t.Parallel()
	_, warnings, err := project.Load(folder(t, `
-- supabase/config.toml --
project_id = 7
auth = "on"
[api]
enabled = 1
port = "many"
max_rows = 10.5
schemas = "public"
extra_search_path = ["public", 5]
unknown = true
[api.tls]
enabled = "env(TLS)"
[db]
port = 2020-01-01
health_timeout = 30
settings = 5
[db.migrations]
schema_paths = [["a"]]
[db.vault]
secret = 12
[inbucket]
port = { a = 1 }
`), []string{"TLS=maybe"})
	want := `supabase/config.toml has 13 mistakes:
  project_id: must be a string, not a whole number
  api.enabled: must be true or false, not a whole number
  api.port: "many" is not a number
  api.schemas: must be a list of strings, not a string
  api.extra_search_path: must be a list of strings, and holds a whole number
  api.max_rows: must be a whole number, not a fraction
  api.tls.enabled: "maybe" is neither true nor false
  db.port: must be a whole number, not a date
  db.health_timeout: must be a duration such as "30s" or "2m", not a whole number
  db.migrations.schema_paths: must be a list of strings, and holds a list
  db.settings: must be a section, not a whole number
  db.vault: secret must be a string, not a whole number
  auth: must be a section, not a string`
	want = strings.Replace(want, "13 mistakes", "14 mistakes", 1) + "\n  inbucket.port: must be a whole number, not a section"
	if !errors.Is(err, sluice.ErrInvalid) {
		t.Fatalf("error %v", err)
	}
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"api.unknown: unknown key, ignored"}, lines(warnings)); d != "" {
		t.Error(d)
	}
}

// TestEnvironment: env(NAME) gives any kind of value, SUPABASE_ variables
// override any key, and of the dotenv files the nearer and more specific win.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	dir := folder(t, `
-- supabase/config.toml --
project_id = "env(ID)"
[api]
port = "env(PORT)"
auto_expose_new_tables = "env(EXPOSE)"
schemas = ["public", "env(SCHEMA)"]
external_url = "https://env(HOST)"
[auth]
enable_signup = "env(SIGNUP)"
site_url = "env(SITE)"
jwt_secret = "env(SECRET)"
[auth.external.github]
secret = "env(UNSET)"
[db.vault]
a = "env(VAULT)"
-- supabase/.env.staging.local --
PORT=1001
-- supabase/.env.local --
PORT=1002
EXPOSE=false
-- supabase/.env.staging --
PORT=1003
EXPOSE=true
SCHEMA=api
-- supabase/.env --
SCHEMA=other
SIGNUP=false
SITE=https://near.example
-- .env.local --
SITE=https://far.example
ID=staged
SECRET=encrypted:BAEVx0
VAULT=from the root
SUPABASE_AUTH_EMAIL_OTP_LENGTH=8
-- .env.production --
ID=never
`)
	p, warnings, err := project.Load(dir, []string{
		"SUPABASE_ENV=staging", "SIGNUP=true", "SUPABASE_DB_SEED_SQL_PATHS=a.sql,b.sql", "SUPABASE_API_MAX_ROWS=",
		"SUPABASE_DB_HEALTH_TIMEOUT=5s", "SUPABASE_API_TLS_CERT_PATH=c.pem", "SUPABASE_REALTIME_ENABLED=0", "broken",
	})
	if err != nil {
		t.Fatal(err)
	}
	c := p.Config
	got := map[string]any{
		"id": c.ProjectID, "port": c.API.Port, "expose": *c.API.AutoExposeNewTables, "schemas": c.API.Schemas, "url": c.API.ExternalURL,
		"signup": c.Auth.EnableSignup, "site": c.Auth.SiteURL, "vault": c.DB.Vault["a"], "otp": c.Auth.Email.OTPLength,
		"seeds": c.DB.Seed.SQLPaths, "rows": c.API.MaxRows, "health": time.Duration(c.DB.HealthTimeout), "cert": c.API.TLS.CertPath,
		"realtime": c.Realtime.Enabled,
	}
	want := map[string]any{
		"id": "staged", "port": 1001, "expose": false, "schemas": []string{"public", "api"}, "url": "https://env(HOST)",
		"signup": true, "site": "https://near.example", "vault": "from the root", "otp": 8,
		"seeds": []string{"a.sql", "b.sql"}, "rows": 1000, "health": 5 * time.Second, "cert": "c.pem",
		"realtime": false,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	wantWarnings := []string{
		`auth.external.github.secret: the environment variable UNSET is not set; the value stays "env(UNSET)"`,
		"auth.jwt_secret: SECRET is encrypted with dotenvx, which Sluice does not undo; run sluice under dotenvx",
	}
	if d := cmp.Diff(wantWarnings, lines(warnings)); d != "" {
		t.Error(d)
	}
}

// TestProviderEnvironment: sections with free names are known to the environment
// too, also by the names of the original's Auth.
func TestProviderEnvironment(t *testing.T) {
	t.Parallel()
	dir := folder(t, `
-- supabase/config.toml --
[auth.external.github]
enabled = "env(ON)"
client_id = "from the file"
secret = "env(GITHUB_SECRET)"
[auth.external."custom:corp"]
enabled = true
client_id = "corp"
url = "https://id.corp.example"
[auth.sms.test_otp]
4152127777 = "123456"
`)
	p, warnings, err := project.Load(dir, []string{
		"ON=true", "GITHUB_SECRET=shh", "SUPABASE_AUTH_EXTERNAL_GITHUB_CLIENT_ID=from the environment", "SUPABASE_AUTH_EXTERNAL_GITHUB_URL=",
		"GOTRUE_EXTERNAL_GITHUB_REDIRECT_URI=https://api.example/callback", "GOTRUE_EXTERNAL_LINKEDIN_OIDC_ENABLED=true",
		"GOTRUE_EXTERNAL_LINKEDIN_OIDC_CLIENT_ID=li", "GOTRUE_SECURITY_CAPTCHA_ENABLED=true", "GOTRUE_SECURITY_CAPTCHA_PROVIDER=turnstile",
		"GOTRUE_SECURITY_CAPTCHA_SECRET=c", "GOTRUE_SMS_TWILIO_ACCOUNT_SID=AC1", "SUPABASE_AUTH_HOOK_SEND_SMS_URI=pg-functions://postgres/public/sms",
	})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want := map[string]project.AuthProvider{
		"github":        {Enabled: true, ClientID: "from the environment", Secret: "shh", RedirectURI: "https://api.example/callback"},
		"linkedin_oidc": {Enabled: true, ClientID: "li"},
		"custom:corp":   {Enabled: true, ClientID: "corp", URL: "https://id.corp.example"},
	}
	if d := cmp.Diff(want, p.Config.Auth.External); d != "" {
		t.Error(d)
	}
	got := []any{p.Config.Auth.Captcha, p.Config.Auth.SMS.Twilio.AccountSID, p.Config.Auth.Hook["send_sms"].URI, p.Config.Auth.SMS.TestOTP["4152127777"]}
	if d := cmp.Diff([]any{project.AuthCaptcha{Enabled: true, Provider: "turnstile", Secret: "c"}, "AC1", "pg-functions://postgres/public/sms", "123456"}, got); d != "" {
		t.Error(d)
	}
	_, _, err = project.Load(folder(t, `
-- supabase/config.toml --
[auth.external]
google = 7
[auth.external.github]
enabled = "perhaps"
[auth.external.gitlab]
enabled = true
[auth.sms.twilio]
enabled = true
[auth.sms.test_otp]
x = "1"
[auth.captcha]
enabled = true
provider = "other"
`), nil)
	for _, want := range []string{
		"auth.external.google: must be a section", `auth.external.github.enabled: "perhaps"`, "auth.external.gitlab.client_id: is missing",
		"auth.sms.twilio: account_sid", "auth.sms.test_otp", "auth.captcha.provider", "auth.captcha.secret: is missing",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

// TestEnvironmentMistakes names the file and the line.
func TestEnvironmentMistakes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ archive, want string }{
		"no value":   {"-- supabase/.env --\nA=1\n\nnonsense\n", filepath.Join("supabase", ".env") + ": line 3: write NAME=value"},
		"open quote": {"-- .env --\nA=\"x\nB=1\n", ".env: line 1: the quote of A is not closed"},
		"folder":     {"-- .env/file --\n", "read "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := project.Load(folder(t, tt.archive), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	// Variables of tests are the same for everybody.
	p, _, err := project.Load(folder(t, "-- .env.local --\nSUPABASE_API_PORT=1\n-- .env.test --\nSUPABASE_API_PORT=2\n"), []string{"SUPABASE_ENV=test"})
	if err != nil || p.Config.API.Port != 2 {
		t.Errorf("in the environment test: %v", err)
	}
}

// TestValues holds what is derived and what is refused.
func TestValues(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config string
		want   []string // in the error
	}{
		"ports":     {"[api]\nport = 0\n[db]\nport = 65536", []string{"api.port: 0 is not a port", "db.port: 65536 is not a port"}},
		"rows":      {"[api]\nmax_rows = -1\nschemas = []", []string{"api.max_rows: must not be negative", "api.schemas: names no schema"}},
		"passwords": {"[auth]\nminimum_password_length = 73\nrefresh_token_reuse_interval = -1", []string{"auth.minimum_password_length: 73 is not between 1 and 72", "auth.refresh_token_reuse_interval"}},
		"expiry":    {"[auth]\njwt_expiry = 604801", []string{"auth.jwt_expiry: 604801 is not between 1 and 604800 seconds"}},
		"settings":  {"[db.settings]\nwork_mem = [1]", []string{"db.settings.work_mem: must be a string, number or boolean"}},
		"duplicate": {"[api]\nport = 1\nport = 2", []string{"line 3", "port"}},
		"not text":  {"project_id = \"\xff\"", []string{"UTF-8"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := project.Load(folder(t, "-- supabase/config.toml --\n"+tt.config+"\n"), nil)
			if !errors.Is(err, sluice.ErrInvalid) {
				t.Fatalf("error %v", err)
			}
			for _, w := range append(tt.want, "supabase/config.toml") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
		})
	}
	p, _, err := project.Load(folder(t, `
-- supabase/config.toml --
project_id = "my project/ä 0123456789012345678901234567890123456789"
[api]
port = 1234
external_url = "https://api.example/"
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if id := p.Config.ProjectID; id != "my_project___012345678901234567890123456" {
		t.Errorf("project_id %q", id)
	}
	named, _, err := project.Load(folder(t, ""), []string{"SUPABASE_SERVICES_HOSTNAME=::1"})
	if err != nil || named.Config.API.ExternalURL != "http://[::1]:54321" || named.Hostname != "::1" {
		t.Errorf("with a host name: %+v, %v", named, err)
	}
	if a := p.Config.Auth; a.ExternalURL != "https://api.example/auth/v1" || a.JWTIssuer != a.ExternalURL {
		t.Errorf("auth URLs %q, %q", a.ExternalURL, a.JWTIssuer)
	}
}

// TestConfigFile: what is no file of a sensible size is refused, without being
// read; editors of Windows put a mark in front.
func TestConfigFile(t *testing.T) {
	t.Parallel()
	dir := folder(t, "-- supabase/config.toml/x --\n")
	if _, _, err := project.Load(dir, nil); err == nil || !strings.Contains(err.Error(), "supabase/config.toml") {
		t.Errorf("a folder: %v", err)
	}
	dir = folder(t, "-- supabase/config.toml --\n")
	file := filepath.Join(dir, "supabase", "config.toml")
	if err := os.Truncate(file, 1<<30); err != nil {
		t.Fatal(err)
	}
	if _, _, err := project.Load(dir, nil); !errors.Is(err, sluice.ErrInvalid) || !strings.Contains(err.Error(), "at most 1048576") {
		t.Errorf("a large file: %v", err)
	}
	if err := os.WriteFile(file, []byte("\ufeff[api]\r\nport = 77\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if p, _, err := project.Load(dir, nil); err != nil || p.Config.API.Port != 77 {
		t.Errorf("with a mark and CRLF: %v", err)
	}
}

// FuzzLoad: no configuration makes it panic, and what it accepts is usable.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{"", "[api]\nport = 5", "a = [[1]]", "[[api]]\nport = 1", "[db.settings]\nx = 1.5", "auth.jwt_expiry = \"env(A)\"", "api.tls = {enabled=true}", `"000000000\`} {
		f.Add(s)
	}
	dir := folder(f, "-- supabase/config.toml --\n")
	f.Fuzz(func(t *testing.T, config string) {
		if err := os.WriteFile(filepath.Join(dir, "supabase", "config.toml"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		p, _, err := project.Load(dir, []string{"A=7"})
		switch {
		case err != nil && !errors.Is(err, sluice.ErrInvalid):
			t.Fatalf("kind of error: %v", err)
		case err == nil && (p.Config.API.Port == p.Config.DB.Port || p.Config.Auth.JWTExpiry == 0 || len(p.Config.API.Schemas) == 0):
			t.Fatalf("accepted: %+v", p.Config)
		}
	})
}
