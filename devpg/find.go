package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Versions of PostgreSQL that Sluice works with.
const (
	MinVersion = 15
	MaxVersion = 18
)

// Binaries is a folder with postgres and initdb of one version.
type Binaries struct {
	Dir     string
	Version int    // major version
	Full    string // as printed: "15.8"
}

// Program is the path of one of the programs in the folder, such as psql, which
// need not be there.
func (b Binaries) Program(name string) string { return filepath.Join(b.Dir, name+exe()) }

// ErrNoBinaries says that no usable server binaries are installed.
var ErrNoBinaries = errors.New("no PostgreSQL server binaries found")

// Find looks for server binaries: in the folder that $SLUICE_PG_BIN names, then
// on PATH, then where Debian, Red Hat, Homebrew and Postgres.app put them,
// newest first. The error wraps ErrNoBinaries and names what to install.
func Find(ctx context.Context) (Binaries, error) { return find(ctx, 0) }

// find prefers binaries of the wanted major version, when that is not 0. The
// further folders come last.
func find(ctx context.Context, want int, further ...string) (Binaries, error) {
	if dir := os.Getenv("SLUICE_PG_BIN"); dir != "" {
		b, err := inspect(ctx, dir)
		if err != nil {
			return Binaries{}, fmt.Errorf("SLUICE_PG_BIN=%s: %w", dir, err)
		}
		return b, nil
	}
	var first Binaries
	var wrong []string
	for _, dir := range append(candidates(), further...) {
		b, err := inspect(ctx, dir)
		switch {
		case err == nil && (want == 0 || b.Version == want):
			return b, nil
		case err == nil && first.Dir == "":
			first = b
		case err != nil && !errors.Is(err, os.ErrNotExist):
			wrong = append(wrong, fmt.Sprintf("%s: %v", dir, err))
		}
	}
	if first.Dir != "" {
		return first, nil
	}
	hint := installHint()
	if len(wrong) > 0 {
		hint += "\nNot usable: " + strings.Join(wrong, "; ")
	}
	return Binaries{}, fmt.Errorf("%w; %s", ErrNoBinaries, hint)
}

// installed are the places where Debian, Red Hat, the source's own make install,
// Alpine, Homebrew and Postgres.app put server binaries.
var installed = []string{
	"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

func candidates() []string {
	var out []string
	add := func(dir string) {
		if dir != "" && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		add(filepath.Dir(p))
		if real, err := filepath.EvalSymlinks(p); err == nil {
			add(filepath.Dir(real))
		}
	}
	var found []string
	for _, pattern := range installed {
		m, _ := filepath.Glob(pattern) // the patterns are well-formed
		found = append(found, m...)
	}
	slices.SortFunc(found, func(a, b string) int { return numberIn(b) - numberIn(a) })
	for _, dir := range found {
		add(dir)
	}
	return out
}

var firstNumber = regexp.MustCompile(`[0-9]+`)

func numberIn(s string) int {
	n, _ := strconv.Atoi(firstNumber.FindString(s)) // 0 when there is none
	return n
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) ((\d+)[^ \n]*)`)

// inspect checks that dir holds binaries of a version that works.
func inspect(ctx context.Context, dir string) (Binaries, error) {
	for _, name := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(filepath.Join(dir, name+exe())); err != nil {
			return Binaries{}, fmt.Errorf("look for %s: %w", name, err)
		}
	}
	out, err := version(ctx, filepath.Join(dir, "postgres"+exe()))
	if err != nil {
		return Binaries{}, fmt.Errorf("ask postgres for its version: %w", err)
	}
	m := versionLine.FindStringSubmatch(string(out))
	if m == nil {
		return Binaries{}, fmt.Errorf("postgres --version says %q", strings.TrimSpace(string(out)))
	}
	v, _ := strconv.Atoi(m[2]) // digits
	if v < MinVersion || v > MaxVersion {
		return Binaries{}, fmt.Errorf("PostgreSQL %s; versions %d to %d work", m[1], MinVersion, MaxVersion)
	}
	return Binaries{Dir: dir, Version: v, Full: m[1]}, nil
}

// version runs postgres --version. Binaries just unpacked can be busy for some
// milliseconds: a process that another goroutine forks meanwhile holds the file
// open for writing until its exec (golang.org/issue/22315).
func version(ctx context.Context, postgres string) ([]byte, error) {
	for wait := time.Millisecond; ; wait *= 2 {
		out, err := exec.CommandContext(ctx, postgres, "--version").Output()
		if !errors.Is(err, syscall.ETXTBSY) || wait > busyFor {
			return out, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// busyFor bounds the last wait for a binary that is written to; all together it
// is twice that.
const busyFor = time.Second

func exe() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// installHint names the command for this system.
func installHint() string {
	switch runtime.GOOS {
	case "darwin":
		return "install them with: brew install postgresql@17"
	case "windows":
		return "install them with: winget install PostgreSQL.PostgreSQL.17"
	}
	for _, s := range []struct{ tool, command string }{
		{"apt-get", "sudo apt-get install postgresql"},
		{"dnf", "sudo dnf install postgresql-server"},
		{"apk", "sudo apk add postgresql"},
		{"pacman", "sudo pacman -S postgresql"},
		{"zypper", "sudo zypper install postgresql-server"},
	} {
		if _, err := exec.LookPath(s.tool); err == nil {
			return "install them with: " + s.command
		}
	}
	return "install your system's postgresql server package"
}
