package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sluice-dev/sluice/doctor"
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
			healthy, seed := httptest.NewServer(fakeStack(false)), httptest.NewServer(fakeStack(true))
			env.Defer(healthy.Close)
			env.Defer(seed.Close)
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

// fakeStack is a gateway with a Realtime that answers every message.
func fakeStack(seed bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		h.Set("Via", "kong/2.8.1")
		switch {
		case r.Method == http.MethodOptions:
		case r.URL.Path == "/realtime/v1/websocket" && seed && strings.HasPrefix(r.URL.Query().Get("apikey"), "sb_"):
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/realtime/v1/websocket":
			nc, _, _, err := ws.UpgradeHTTP(r, w)
			if err != nil {
				return
			}
			defer nc.Close()
			fakeSocket(nc, r.URL.Query().Get("vsn") == "1.0.0")
		case r.URL.Path == "/auth/v1/health":
			io.WriteString(w, `{"name":"GoTrue","version":"v2"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"code":"PGRST205","message":"no such table"}`)
		}
	})
}

// fakeSocket answers every message with an ok, and sends broadcasts back.
func fakeSocket(nc io.ReadWriter, v1 bool) {
	write := func(ref, topic, event, payload json.RawMessage) {
		text, _ := json.Marshal([]json.RawMessage{json.RawMessage("null"), ref, topic, event, payload})
		if v1 {
			text, _ = json.Marshal(map[string]json.RawMessage{"ref": ref, "topic": topic, "event": event, "payload": payload})
		}
		_ = wsutil.WriteServerText(nc, text)
	}
	for {
		data, _, err := wsutil.ReadClientData(nc)
		if err != nil {
			return
		}
		var a [5]json.RawMessage // join_ref, ref, topic, event, payload
		if v1 {
			var m struct{ Ref, Topic, Event, Payload json.RawMessage }
			err = json.Unmarshal(data, &m)
			a = [5]json.RawMessage{nil, m.Ref, m.Topic, m.Event, m.Payload}
		} else {
			err = json.Unmarshal(data, &a)
		}
		if err != nil {
			return
		}
		if string(a[3]) == `"broadcast"` {
			write(json.RawMessage("null"), a[2], a[3], a[4])
		}
		if string(a[3]) != `"access_token"` {
			write(a[1], a[2], json.RawMessage(`"phx_reply"`), json.RawMessage(`{"status":"ok","response":{"postgres_changes":[]}}`))
		}
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
