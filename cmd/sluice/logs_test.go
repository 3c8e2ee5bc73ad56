package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestFollowLog: what is written appears at the next look, a line at a time,
// also after the next start has begun the log anew.
func TestFollowLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sluice.log")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	write := func(text string) {
		if _, err := io.WriteString(file, text); err != nil {
			t.Error(err)
		}
	}
	write("one\ntwo\nthr")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out syncBuffer
		done := make(chan error, 1)
		go func() { done <- showLog(ctx, path, &logView{plain: true}, 1, true, &out) }()
		look := func(want string) {
			t.Helper()
			time.Sleep(2 * logRhythm) // of the bubble's clock
			synctest.Wait()
			if got := out.String(); got != want {
				t.Errorf("shown %q, want %q", got, want)
			}
		}
		look("two\n")
		write("ee")
		look("two\n")
		write("\nfour\n")
		look("two\nthree\nfour\n")
		if err := file.Truncate(0); err != nil {
			t.Error(err)
		}
		look("two\nthree\nfour\n")
		write("again\n")
		look("two\nthree\nfour\nagain\n")
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended by Ctrl-C: %v", err)
		}
	})
}

func TestLogColours(t *testing.T) {
	t.Parallel()
	e := parseRecord(`time=2026-01-02T10:00:02.000Z level=WARN msg=request code=InvalidAPIKey service=gateway`)
	const plain = "2026-01-02 10:00:02 WARN  gateway  request code=InvalidAPIKey"
	if got := (&logView{}).show(e); got != plain {
		t.Errorf("plain: %q", got)
	}
	const painted = "2026-01-02 10:00:02 \x1b[33mWARN \x1b[0m gateway  request code=\x1b[33mInvalidAPIKey\x1b[0m"
	if got := (&logView{colour: true}).show(e); got != painted {
		t.Errorf("painted: %q", got)
	}
	// A text of somebody else's does not steer the terminal.
	if got := (&logView{colour: true}).show(logEntry{text: "\x1b]0;title\a"}); strings.ContainsAny(got, "\x1b\a") {
		t.Errorf("a plain line: %q", got)
	}
}

// TestServiceOfLines: a record names the package that logs it, also through a
// logger that was given attributes.
func TestServiceOfLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(byService{slog.NewTextHandler(&out, nil)})
	log.With("conn", 7).Info("here")
	if e := parseRecord(strings.TrimSpace(out.String())); e.service != "stack" || len(e.attrs) != 1 {
		t.Errorf("read %+v of %s", e, out.String())
	}
	for function, want := range map[string]string{
		"main.(*database).keep":                                        "stack",
		"github.com/sluice-dev/sluice/cmd/sluice.run":                  "stack",
		"github.com/sluice-dev/sluice/realtime.(*Server).accept.func1": "realtime",
		"github.com/sluice-dev/sluice/realtime/phoenix.Decode":         "realtime",
		"github.com/sluice-dev/sluice.Refuse":                          "",
		"net/http.(*Server).Serve":                                     "",
		"":                                                             "",
	} {
		if got := serviceOf(function); got != want {
			t.Errorf("%s: %q, want %q", function, got, want)
		}
	}
}

// TestLogLines: whatever stands in a file is shown on one line that steers no
// terminal, and what slog writes is read back.
func TestLogLines(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"", "=", `time="`, `time=2026-01-02T10:00:02.000Z level=LOUD`, "level=INFO msg=x", `time=2026-01-02T10:00:02.000Z msg="a" b`, "\x1b[8m"} {
		if e := parseRecord(line); e.record || e.text != line {
			t.Errorf("%q is read as %+v", line, e)
		}
	}
	for _, value := range []string{"", "plain", "two words", `a "b" \c`, "a=b", "two\nlines", "\x1b[8m\a", "é ☃ \u202e", "\xff"} {
		var out bytes.Buffer
		slog.New(slog.NewTextHandler(&out, nil)).Info(value, "attr", value)
		e := parseRecord(strings.TrimSuffix(out.String(), "\n"))
		if !e.record || e.text != value || len(e.attrs) != 1 || e.attrs[0] != (logAttr{"attr", value}) {
			t.Errorf("%q is read as %+v", out.String(), e)
		}
		if got := (&logView{}).show(e); strings.ContainsAny(got, "\n\x1b\a") {
			t.Errorf("%q is shown as %q", value, got)
		}
	}
}
