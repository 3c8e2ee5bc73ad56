//go:build unix

package devpg_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/devpg"
)

// binaries returns a folder with server binaries that can say their version and
// nothing else.
func binaries(t testing.TB, saying string) string {
	t.Helper()
	dir := room(t)
	program(t, dir, "postgres", "echo '"+saying+"'")
	program(t, dir, "initdb", "exit 1")
	return dir
}

// program writes an executable shell script.
func program(t testing.TB, dir, name, script string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestFind looks in the order named, path, installed. Not parallel: it changes
// the environment.
func TestFind(t *testing.T) {
	devpg.HideInstalled(t)
	good, older := binaries(t, "postgres (PostgreSQL) 17.2 (Debian 17.2-1)"), binaries(t, "postgres (PostgreSQL) 16beta1")
	old, odd := binaries(t, "postgres (PostgreSQL) 14.9"), binaries(t, "I am a database")
	half := room(t)
	program(t, half, "postgres", "echo postgres '(PostgreSQL)' 17.1")
	broken := binaries(t, "")
	program(t, broken, "postgres", "exit 3")

	type result struct {
		dir     string
		version int
		full    string
		err     []string
	}
	for name, tt := range map[string]struct {
		named, path string
		version     int
		want        result
	}{
		"on the path":                {path: good, want: result{dir: good, version: 17, full: "17.2"}},
		"first of two":               {path: older + ":" + good, want: result{dir: older, version: 16, full: "16beta1"}},
		"named wins":                 {named: older, path: good, want: result{dir: older, version: 16, full: "16beta1"}},
		"named is missing":           {named: "/nowhere", path: good, want: result{err: []string{"SLUICE_PG_BIN=/nowhere", "look for postgres"}}},
		"named is too old":           {named: old, path: good, want: result{err: []string{"SLUICE_PG_BIN=" + old, "PostgreSQL 14.9", "versions 15 to 18"}}},
		"named says no version":      {named: odd, want: result{err: []string{"SLUICE_PG_BIN=", `"I am a database"`}}},
		"named lacks initdb":         {named: half, want: result{err: []string{"look for initdb"}}},
		"named does not run":         {named: broken, want: result{err: []string{"ask postgres for its version", "exit status 3"}}},
		"nothing":                    {path: "/nowhere", want: result{err: []string{"no PostgreSQL server binaries found", "postgresql"}}},
		"nothing usable":             {path: old, want: result{err: []string{"no PostgreSQL server binaries found", "Not usable: " + old, "14.9"}}},
		"version of the cluster":     {path: good, version: 17, want: result{dir: good, version: 17, full: "17.2"}},
		"another version of cluster": {path: older, version: 17, want: result{dir: older, version: 16, full: "16beta1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SLUICE_PG_BIN", tt.named)
			t.Setenv("PATH", tt.path)
			b, err := devpg.FindVersion(t.Context(), tt.version)
			if tt.want.err != nil {
				wantError(t, err, tt.want.err...)
				if got := strings.HasPrefix(name, "nothing"); errors.Is(err, devpg.ErrNoBinaries) != got {
					t.Errorf("ErrNoBinaries: %v, want %v", !got, got)
				}
				return
			}
			if err != nil || b.Dir != tt.want.dir || b.Version != tt.want.version || b.Full != tt.want.full {
				t.Errorf("got %+v, %v, want %+v", b, err, tt.want)
			}
		})
	}
}

// TestFindWaitsForABusyBinary: one that is still held open for writing, as a
// process forked during the unpacking does, is asked again.
func TestFindWaitsForABusyBinary(t *testing.T) {
	dir := binaries(t, "postgres (PostgreSQL) 17.2")
	f, err := os.OpenFile(filepath.Join(dir, "postgres"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(30*time.Millisecond, func() { f.Close() })
	t.Setenv("SLUICE_PG_BIN", dir)
	if b, err := devpg.FindVersion(t.Context(), 17); err != nil || b.Full != "17.2" {
		t.Errorf("got %+v, %v", b, err)
	}
}

// TestFindClusterVersion: further folders, where fetched binaries are, serve a
// cluster that the installed ones do not fit.
func TestFindClusterVersion(t *testing.T) {
	devpg.HideInstalled(t)
	installed, fetched := binaries(t, "postgres (PostgreSQL) 15.1"), binaries(t, "postgres (PostgreSQL) 17.5")
	t.Setenv("SLUICE_PG_BIN", "")
	t.Setenv("PATH", installed)
	for want, dir := range map[int]string{0: installed, 15: installed, 17: fetched, 18: installed} {
		if b, err := devpg.FindVersion(t.Context(), want, fetched); err != nil || b.Dir != dir {
			t.Errorf("version %d: %+v, %v; want those in %s", want, b, err, dir)
		}
	}
}

// TestInstallHint names the command of the system at hand.
func TestInstallHint(t *testing.T) {
	devpg.HideInstalled(t)
	t.Setenv("SLUICE_PG_BIN", "")
	for tool, want := range map[string]string{
		"apt-get": "sudo apt-get install postgresql", "dnf": "sudo dnf install postgresql-server", "apk": "sudo apk add postgresql",
		"pacman": "sudo pacman -S postgresql", "zypper": "sudo zypper install postgresql-server", "": "your system's postgresql server package",
	} {
		t.Run(fmt.Sprintf("%q", tool), func(t *testing.T) {
			dir := room(t)
			if tool != "" {
				program(t, dir, tool, "")
			}
			t.Setenv("PATH", dir)
			_, err := devpg.Find(t.Context())
			wantError(t, err, want)
		})
	}
}
