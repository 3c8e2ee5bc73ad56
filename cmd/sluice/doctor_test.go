package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/internal/standin"
	"github.com/sluice-dev/sluice/token"
)

// lastCode is the key of the exit code of a script's last `sluice`.
type lastCode struct{}

// TestDoctorScripts runs testdata/doctor/*.txtar. A script has two servers:
// $HEALTHY, where everything works, and $SEED, whose gateway exchanges an opaque
// key on REST and not on the socket; $PAGE has pages of an app. `run ARGS` runs the program in this
// process, `code N` checks its exit code.
func TestDoctorScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Files: scripts(t, "testdata/doctor/*.txtar"),
		Setup: func(env *testscript.Env) error {
			healthy, seed := &standin.Stack{}, &standin.Stack{Admit: func(w http.ResponseWriter, r *http.Request) bool {
				refused := strings.HasPrefix(r.URL.Query().Get("apikey"), "sb_")
				if refused {
					w.WriteHeader(http.StatusForbidden)
				}
				return refused
			}}
			for _, s := range []*standin.Stack{healthy, seed} {
				s.Start()
				env.Defer(s.Close)
			}
			page := httptest.NewServer(http.HandlerFunc(fakePages))
			env.Defer(page.Close)
			env.Setenv("PAGE", page.URL)
			env.Setenv("HEALTHY", healthy.URL)
			env.Setenv("SEED", seed.URL)
			env.Setenv("KEY", token.DevPublishableKey)
			env.Values[lastCode{}] = new(int)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"run": func(ts *testscript.TestScript, neg bool, args []string) {
				code := run(context.Background(), append(args, "--workdir", ts.Getenv("WORK")), ts.Stdout(), ts.Stderr())
				*ts.Value(lastCode{}).(*int) = code
				if neg != (code != 0) {
					ts.Fatalf("sluice %s: exit code %d", strings.Join(args, " "), code)
				}
			},
			"code": func(ts *testscript.TestScript, _ bool, args []string) {
				if got := strconv.Itoa(*ts.Value(lastCode{}).(*int)); got != args[0] {
					ts.Fatalf("exit code is %s, want %s", got, args[0])
				}
			},
		},
	})
}

// fakePages are pages with the policies that their paths name.
func fakePages(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/open":
	case "/rest":
		w.Header().Set("Content-Security-Policy", "connect-src 'self' http://127.0.0.1:54321")
	case "/both":
		w.Header().Set("Content-Security-Policy", "connect-src 'self' http://127.0.0.1:54321 ws://127.0.0.1:54321")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// scripts lists the files of a pattern.
func scripts(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts %s: %v", pattern, err)
	}
	return files
}

func TestAgreed(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{"y\n": true, "YES\r\n": true, " y": true, "\n": false, "": false, "n\n": false, "no\ny\n": false, "yellow\n": false} {
		if got := agreed(t.Context(), strings.NewReader(answer)); got != want {
			t.Errorf("%q: %t", answer, got)
		}
	}
	// Ctrl-C while nobody answers.
	in, out := io.Pipe()
	defer out.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if agreed(ctx, in) {
		t.Error("an interrupt is no yes")
	}
}

func TestDoctorColours(t *testing.T) {
	t.Parallel()
	r := &doctor.Report{URL: "http://127.0.0.1:54321", Findings: []doctor.Finding{{Hop: doctor.HopTCP, Status: doctor.Fail, Text: "no"}}}
	var plain, painted strings.Builder
	printReport(&plain, r, false)
	printReport(&painted, r, true)
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(painted.String(), "\x1b[31mfail\x1b[0m") {
		t.Errorf("plain:\n%q\npainted:\n%q", plain.String(), painted.String())
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if isTerminal(file) || isTerminal(&plain) {
		t.Error("a file is taken for a terminal")
	}
}
