package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const nextChat = "../examples/nextjs-chat"

// TestNextjsChat builds the example as for production and drives it in Chromium and
// in Firefox; the doctor finds nothing to say about it.
func TestNextjsChat(t *testing.T) {
	bin, err := node()
	need(t, err)
	_, err = chromium()
	need(t, err)
	need(t, postgres())
	next := filepath.Join(nextChat, "node_modules", "next", "dist", "bin", "next")
	if _, err := os.Stat(next); err != nil {
		need(t, fmt.Errorf("%w; run tools/setup.sh node", err))
	}
	ports := freePorts(t, 5)
	s := &stack{bin: sluice(t), dir: t.TempDir(), args: []string{"--chat"}, log: &logBuffer{}, out: &logBuffer{}, env: []string{
		fmt.Sprintf("SUPABASE_API_PORT=%d", ports[0]), fmt.Sprintf("SUPABASE_DB_PORT=%d", ports[1]),
		fmt.Sprintf("SUPABASE_INBUCKET_PORT=%d", ports[2]), fmt.Sprintf("SUPABASE_STUDIO_PORT=%d", ports[3]),
	}}
	copyFiles(t, filepath.Join(nextChat, "supabase"), filepath.Join(s.dir, "supabase"))
	s.start(t)

	app := fmt.Sprintf("http://127.0.0.1:%d", ports[4])
	env := append(os.Environ(), "NEXT_TELEMETRY_DISABLED=1", "NODE_ENV=production",
		"NEXT_PUBLIC_SUPABASE_URL="+s.vars["API_URL"], "NEXT_PUBLIC_SUPABASE_PUBLISHABLE_KEY="+s.vars["PUBLISHABLE_KEY"])
	run := func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, bin, append([]string{filepath.Join("node_modules", "next", "dist", "bin", "next")}, args...)...)
		cmd.Dir, cmd.Env, cmd.WaitDelay = nextChat, env, 5*time.Second
		return cmd
	}
	if out, err := run(t.Context(), "build").CombinedOutput(); err != nil {
		t.Fatalf("next build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := run(ctx, "start", "-H", "127.0.0.1", "-p", fmt.Sprint(ports[4]))
	var log logBuffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = server.Wait() // it was killed
		if t.Failed() {
			t.Logf("next start: %s", log.String())
		}
	})
	eventually(t, time.Minute, func() error {
		res, err := http.Get(app + "/login")
		if err == nil {
			res.Body.Close()
		}
		return err
	})

	s.mu.Lock()
	s.chat = app
	s.mu.Unlock()
	connect, err := s.run("csp", s.vars["API_URL"])
	if err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "CONNECT_SRC="+strings.TrimSpace(connect))
	url := control(t, s)
	runScript(t, s, url, "browser/nextjs.test.mjs")
	t.Run("firefox", func(t *testing.T) {
		path, err := firefox()
		need(t, err)
		s.env = append(s.env, "SLUICE_FIREFOX="+path)
		runScript(t, s, url, "browser/firefox.test.mjs")
	})

	// The project as a developer has it: with the address and the key of this stack.
	project := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join(nextChat, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(project, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	vars, err := s.run("status", "-o", "env", "--override-name", "api.url=NEXT_PUBLIC_SUPABASE_URL", "--override-name", "auth.publishable_key=NEXT_PUBLIC_SUPABASE_PUBLISHABLE_KEY")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(project, ".env.local"), []byte(vars), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := s.run("doctor", "--page", app+"/login", "--project", project)
	if err != nil || !strings.Contains(out, "Nothing fails.") || strings.Contains(out, "Warning") {
		t.Errorf("the doctor: %v\n%s", err, out)
	}
}
