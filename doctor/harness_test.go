package doctor_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/internal/standin"
	"github.com/sluice-dev/sluice/token"
)

const (
	publishable = token.DevPublishableKey
	theSecret   = "a-secret-of-this-project-with-many-characters"
)

var (
	legacyAnon = token.LegacyKey(token.DevJWTSecret, "anon")
	otherAnon  = token.LegacyKey("another-secret-of-another-project-altogether", "anon")
)

// userToken is a user's token that ends after d.
func userToken(t *testing.T, d time.Duration) string {
	t.Helper()
	ring, err := token.New(token.Config{Secret: token.DevJWTSecret})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := ring.Sign(map[string]any{"role": "authenticated", "sub": "5ec4ed11-c1a0-4e07-a5ff-5d7ad0d9b7a1", "exp": time.Now().Add(d).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// forged is a JWT that nobody signed, with these header and claims.
func forged(header, claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(header)) + "." + enc([]byte(claims)) + ".c2ln"
}

// newWorld is a stack that is changed before it starts.
func newWorld(t *testing.T, change ...func(*standin.Stack)) *standin.Stack {
	t.Helper()
	w := &standin.Stack{Routes: map[string]http.HandlerFunc{}}
	for _, c := range change {
		c(w)
	}
	w.Start()
	t.Cleanup(w.Close)
	return w
}

// patience is the time that a test gives a server that hangs, and one that does
// not on a busy machine.
const (
	impatient = 2 * time.Second
	patient   = time.Minute
)

// visit runs the doctor. No report may hold a secret.
func visit(t *testing.T, cfg doctor.Config) *doctor.Report {
	t.Helper()
	if cfg.Key == "" {
		cfg.Key = publishable
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = patient
	}
	if cfg.Total == 0 {
		cfg.Total = 5 * patient
	}
	r, err := doctor.Check(context.Background(), cfg)
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []sluice.Secret{cfg.Key, cfg.LegacyKey, cfg.JWTSecret, cfg.Token, cfg.Password, cfg.DatabaseURL, sluice.Secret(legacyAnon)} {
		if s != "" && strings.Contains(string(text), string(s)) {
			t.Errorf("the report holds a secret:\n%s", text)
		}
	}
	return r
}

// at returns the worst finding of a hop.
func at(t *testing.T, r *doctor.Report, hop doctor.Hop) doctor.Finding {
	t.Helper()
	var worst *doctor.Finding
	order := map[doctor.Status]int{doctor.Skip: 0, doctor.OK: 1, doctor.Warn: 2, doctor.Fail: 3}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Hop == hop && (worst == nil || order[f.Status] > order[worst.Status]) {
			worst = f
		}
	}
	if worst == nil {
		t.Fatalf("no finding for %q in\n%s", hop, show(r))
	}
	return *worst
}

func show(r *doctor.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-4s %-16s %s | %s | %s\n", f.Status, f.Hop, f.Text, f.Evidence, f.Remedy)
	}
	return b.String()
}

// wantFirst checks the first failing finding: its hop, code, rule, and parts of
// its text, evidence and remedy.
func wantFirst(t *testing.T, r *doctor.Report, hop doctor.Hop, code sluice.Code, rule int, parts ...string) {
	t.Helper()
	f := r.First()
	if f == nil {
		t.Fatalf("nothing fails:\n%s", show(r))
	}
	if f.Hop != hop {
		t.Fatalf("first failing hop is %q, want %q:\n%s", f.Hop, hop, show(r))
	}
	wantFinding(t, *f, code, rule, parts...)
}

func wantFinding(t *testing.T, f doctor.Finding, code sluice.Code, rule int, parts ...string) {
	t.Helper()
	if f.Code != code || f.Rule != rule {
		t.Errorf("finding has code %s, rule %d; want %s, rule %d: %+v", f.Code, f.Rule, code, rule, f)
	}
	all := f.Text + "\n" + f.Evidence + "\n" + f.Remedy
	for _, p := range parts {
		if !strings.Contains(all, p) {
			t.Errorf("finding lacks %q:\n%s", p, all)
		}
	}
	if f.Remedy == "" || f.Evidence == "" || f.Confidence == "" {
		t.Errorf("finding without a remedy, evidence or confidence: %+v", f)
	}
}
