// Package e2e_test runs the built binary with stock clients: supabase-js of the
// seed's time and the current one under Node 22, @supabase/ssr and the chat
// page in Chromium. Versions are locked in package-lock.json; `npm ci` in this
// folder installs them (tools/setup.sh node does it).
//
// Each Go test starts `sluice start` in a folder of its own and runs scripts of
// node/ or browser/ against it. Without npm packages, Chromium or PostgreSQL a
// test skips and says so; with SLUICE_E2E=required it fails.
package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// binary is built once for all tests.
var binary struct {
	once sync.Once
	dir  string
	path string
	err  error
}

func TestMain(m *testing.M) {
	fmt.Println(versions())
	code := m.Run()
	if binary.dir != "" {
		os.RemoveAll(binary.dir)
	}
	os.Exit(code)
}

// versions says in one line which clients the suite runs.
func versions() string {
	parts := []string{}
	for _, name := range []string{"node", "@supabase/supabase-js", "supabase-js-2.75.0", "@supabase/ssr", "phoenix", "ws", "playwright-core", "puppeteer-core"} {
		var about struct{ Version string }
		text, err := os.ReadFile(filepath.Join("node_modules", name, "package.json"))
		if err != nil || json.Unmarshal(text, &about) != nil {
			about.Version = "not installed"
		}
		parts = append(parts, strings.TrimPrefix(name, "@supabase/")+" "+about.Version)
	}
	for name, find := range map[string]func() (string, error){"Chromium": chromium, "Firefox": firefox} {
		browser := name + " not installed"
		if path, err := find(); err == nil {
			if out, err := exec.Command(path, "--version").Output(); err == nil {
				browser = string(bytes.TrimSpace(out))
			}
		}
		parts = append(parts, browser)
	}
	return "clients: " + strings.Join(parts, ", ")
}

// need skips the test for want of something, or fails it in CI.
func need(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("SLUICE_E2E") == "required" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// sluice returns the path of the binary, built from this tree.
func sluice(t *testing.T) string {
	t.Helper()
	binary.once.Do(func() {
		binary.dir, binary.err = os.MkdirTemp("", "sluice-e2e-")
		if binary.err != nil {
			return
		}
		binary.path = filepath.Join(binary.dir, "sluice")
		args := []string{"build", "-o", binary.path}
		if os.Getenv("SLUICE_E2E_RACE") != "" {
			args = append(args, "-race")
		}
		out, err := exec.Command("go", append(args, "../cmd/sluice")...).CombinedOutput()
		if err != nil {
			binary.err = fmt.Errorf("build sluice: %w\n%s", err, out)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.path
}

// node returns Node 22 of package-lock.json: older ones lack WebSocket, and
// npm gives them old clients.
func node() (string, error) {
	path, err := filepath.Abs("node_modules/.bin/node")
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", errors.New("the stock clients are not installed; run npm ci in test/")
	}
	return path, nil
}

// chromium finds the browser; SLUICE_CHROMIUM names another one.
func chromium() (string, error) {
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	if named := os.Getenv("SLUICE_CHROMIUM"); named != "" {
		names = []string{named}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium found; install Debian's chromium or name one in SLUICE_CHROMIUM")
}

// firefox finds the browser; SLUICE_FIREFOX names another one.
func firefox() (string, error) {
	names := []string{"firefox-esr", "firefox"}
	if named := os.Getenv("SLUICE_FIREFOX"); named != "" {
		names = []string{named}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Firefox found; install Debian's firefox-esr or name one in SLUICE_FIREFOX")
}

// postgres asks for server binaries where Debian and others put them. Sluice
// would fetch its own; a test run must not.
func postgres() error {
	if os.Getenv("SLUICE_PG_BIN") != "" {
		return nil
	}
	if _, err := exec.LookPath("initdb"); err == nil {
		return nil
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/initdb", "/opt/homebrew/opt/postgresql@*/bin/initdb", "/usr/pgsql-*/bin/initdb"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return nil
		}
	}
	return errors.New("no PostgreSQL server binaries found")
}
