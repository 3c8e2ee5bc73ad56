package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/internal/oidctest"
)

// TestClients runs the scripts that need no failure of the stack, one after
// another on one stack.
func TestClients(t *testing.T) {
	_, err := node()
	need(t, err)
	s := newStack(t)
	url := control(t, s)
	for _, script := range []string{
		"node/handshake.test.mjs",
		"node/auth_rest.test.mjs",
		"node/rest.test.mjs",
		"node/mail.test.mjs",
		"node/broadcast.test.mjs",
		"node/changes.test.mjs",
		"node/refusals.test.mjs",
		"node/frames.test.mjs",
		"node/phoenix.test.mjs",
		"node/private.test.mjs",
		"node/expiry.test.mjs",
	} {
		t.Run(name(script), func(t *testing.T) { runScript(t, s, url, script) })
	}
}

// TestBrowser runs the pages in Chromium.
func TestBrowser(t *testing.T) {
	_, err := node()
	need(t, err)
	_, err = chromium()
	need(t, err)
	s := newStack(t)
	url := control(t, s)
	for _, script := range []string{
		"browser/handshake.test.mjs",
		"browser/ssr.test.mjs",
		"browser/chat.test.mjs",
	} {
		t.Run(name(script), func(t *testing.T) { runScript(t, s, url, script) })
	}
}

// TestConsole opens the console in Chromium.
func TestConsole(t *testing.T) {
	_, err := node()
	need(t, err)
	_, err = chromium()
	need(t, err)
	s := newStack(t)
	runScript(t, s, control(t, s), "browser/console.test.mjs")
}

// TestAccounts runs what people do with their accounts, on a project in which
// addresses must be confirmed, with an identity provider of the suite's own.
func TestAccounts(t *testing.T) {
	_, err := node()
	need(t, err)
	provider := oidctest.New(t)
	s := newProject(t)
	s.configure(t, map[string]string{
		"[auth]\n":                     "[auth]\nenable_anonymous_sign_ins = true\nenable_manual_linking = true\n",
		"enable_confirmations = false": "enable_confirmations = true\nsecure_password_change = true",
	}, fmt.Sprintf(`
[auth.mfa.totp]
enroll_enabled = true
verify_enabled = true
[auth.sms]
enable_signup = true
enable_confirmations = true
[auth.sms.test_otp]
15550009999 = "123456"
[auth.external."custom:local"]
enabled = true
client_id = %q
secret = "env(LOCAL_PROVIDER_SECRET)"
url = %q
`, oidctest.ClientID, provider.URL))
	s.env = []string{"LOCAL_PROVIDER_SECRET=" + oidctest.ClientSecret}
	s.start(t)
	url := control(t, s)
	runScript(t, s, url, "node/accounts.test.mjs")
	t.Run("browser", func(t *testing.T) {
		_, err := chromium()
		need(t, err)
		runScript(t, s, url, "browser/accounts.test.mjs")
	})
}

// TestRestart kills Sluice and stops PostgreSQL under connected clients.
func TestRestart(t *testing.T) {
	_, err := node()
	need(t, err)
	s := newStack(t)
	runScript(t, s, control(t, s), "node/restart.test.mjs")
}

// TestResume cuts connections, kills Sluice and stops PostgreSQL while rows are
// written.
func TestResume(t *testing.T) {
	_, err := node()
	need(t, err)
	s := newStack(t)
	runScript(t, s, control(t, s), "node/resume.test.mjs")
}

// TestRetry stops PostgreSQL under a client that asks.
func TestRetry(t *testing.T) {
	_, err := node()
	need(t, err)
	s := newStack(t)
	runScript(t, s, control(t, s), "node/retry.test.mjs")
}

// TestTokensClose runs the script on tokens that expire with the original's way
// of closing their channels; TestClients runs it with Sluice's own.
func TestTokensClose(t *testing.T) {
	_, err := node()
	need(t, err)
	s := newProject(t)
	s.env = []string{"SLUICE_REALTIME_TOKEN_EXPIRY=close", "TOKEN_EXPIRY=close"}
	s.start(t)
	runScript(t, s, control(t, s), "node/expiry.test.mjs")
}

func name(script string) string {
	return strings.TrimSuffix(filepath.Base(script), ".test.mjs")
}

// runScript runs one file of tests under node:test; each of its tests becomes
// a subtest, so that the summary counts and names them.
func runScript(t *testing.T, s *stack, controlURL, script string) {
	t.Helper()
	bin, err := node()
	need(t, err)
	browser, _ := chromium()
	shots := os.Getenv("SLUICE_E2E_SCREENSHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "--test-force-exit", "--test-reporter", "tap", "--test", "--test-concurrency", "1", script)
	cmd.Env = append(os.Environ(),
		"CONTROL_URL="+controlURL, "CHAT_URL="+s.chat, "SCREENSHOTS="+shots, "SLUICE_CHROMIUM="+browser)
	cmd.Env = append(cmd.Env, s.env...)
	for name, value := range s.vars {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	results := readTAP(string(out))
	for _, r := range results {
		t.Run(r.name, func(t *testing.T) {
			if !r.ok {
				t.Error(r.detail)
			}
		})
	}
	if err != nil && !t.Failed() || len(results) == 0 {
		t.Errorf("%s: %v\n%s", script, err, out)
	}
}

type tapResult struct {
	name   string
	ok     bool
	detail string
}

// readTAP takes node:test's results out of its TAP output: lines "ok N - name"
// and "not ok N - name", followed by an indented block with the reason.
func readTAP(out string) []tapResult {
	var results []tapResult
	var detail strings.Builder
	flush := func() {
		if len(results) > 0 {
			results[len(results)-1].detail = detail.String()
		}
		detail.Reset()
	}
	for _, line := range strings.Split(out, "\n") {
		ok := strings.HasPrefix(line, "ok ")
		if _, rest, found := strings.Cut(line, " - "); found && (ok || strings.HasPrefix(line, "not ok ")) {
			if strings.HasSuffix(rest, ".mjs") {
				continue // the file itself could not be run: the whole output is shown
			}
			flush()
			results = append(results, tapResult{name: rest, ok: ok})
			continue
		}
		detail.WriteString(line)
		detail.WriteByte('\n')
	}
	flush()
	return results
}
