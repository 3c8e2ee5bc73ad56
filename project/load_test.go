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
