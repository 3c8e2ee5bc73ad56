package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice/devpg"
	"github.com/sluice-dev/sluice/project"
)

// claim is a port that a project's stack listens to.
type claim struct {
	section string // of supabase/config.toml; its key is port
	port    int
}

func claims(c project.Config) []claim {
	out := []claim{{"api", c.API.Port}, {"db", c.DB.Port}}
	if c.Studio.Enabled {
		out = append(out, claim{"studio", c.Studio.Port})
	}
	if c.Inbucket.Enabled {
		out = append(out, claim{"inbucket", c.Inbucket.Port})
	}
	return out
}

// checkPorts says which ports are taken, by whom, and which are free instead. A
// PostgreSQL of this project's own that a crash has left counts as free: its start
// ends it.
func checkPorts(f *folder, c project.Config) error {
	var lines []string
	others := map[string]bool{}
	for _, x := range claims(c) {
		// Its file goes after its port does: looked at first, neither is missed.
		if x.section == "db" && f.leftPostgres(x.port) || free(x.port) {
			continue
		}
		line := fmt.Sprintf("  %d  port in [%s] is taken%s", x.port, x.section, devpg.Holder(x.port))
		if dir := projectAt(x.port); dir != "" {
			line += ", the project in " + dir
			others[dir] = true
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "this project's ports are not free:\n%s\n", strings.Join(lines, "\n"))
	for dir := range others {
		fmt.Fprintf(&b, "Stop it with: sluice stop --workdir %s\n", quoteArg(dir))
	}
	if len(others) == 0 {
		b.WriteString("End the other program, or ")
	} else {
		b.WriteString("Or ")
	}
	b.WriteString("take the next free ports, in supabase/config.toml:")
	for _, x := range nextFree(claims(c)) {
		fmt.Fprintf(&b, "\n\n[%s]\nport = %d", x.section, x.port)
	}
	return fmt.Errorf("%s", b.String()) //nolint:err113 // for a person
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// nextFree moves all ports by the same multiple of ten to where they are free, so
// that their last digits still tell what they are.
func nextFree(list []claim) []claim {
	for step := 10; step < 10000; step += 10 {
		out := make([]claim, 0, len(list))
		for _, x := range list {
			if port := x.port + step; port < 65536 && free(port) {
				out = append(out, claim{x.section, port})
			}
		}
		if len(out) == len(list) {
			return out
		}
	}
	return nil
}

// leftPostgres reports whether the project's own PostgreSQL was started on port, by
// the file that it keeps while it runs.
func (f *folder) leftPostgres(port int) bool {
	dir, err := devpg.Place(f.data())
	if err != nil {
		return false
	}
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	lines := strings.Split(string(text), "\n")
	return err == nil && len(lines) > 3 && strings.TrimSpace(lines[3]) == strconv.Itoa(port)
}

// stacksDir is where the folders of this user's stacks are noted; empty when the
// system has no place for it.
func stacksDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "sluice", "stacks")
}

// note lets other projects find this one by its ports. That it can't is no error: a
// clash then names no folder.
func (f *folder) note() {
	dir := stacksDir()
	if dir == "" || os.MkdirAll(dir, 0o700) != nil {
		return
	}
	sum := sha256.Sum256([]byte(f.workdir))
	_ = os.WriteFile(filepath.Join(dir, hex.EncodeToString(sum[:8])), []byte(f.workdir), 0o600)
}

// projectAt returns the folder of the running stack that listens to port. Notes of
// stacks that do not run are removed.
func projectAt(port int) string {
	dir := stacksDir()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		f, err := openFolder(string(text))
		if err != nil {
			_ = os.Remove(name)
			continue
		}
		s, err := f.running()
		switch {
		case err != nil: // it starts or stops
		case s == nil:
			_ = os.Remove(name)
		case s.listens(port):
			return f.workdir
		}
	}
	return ""
}

// listens reports whether one of the stack's addresses has the port.
func (s *state) listens(port int) bool {
	for _, v := range s.Vars {
		if u, err := url.Parse(v.Value); err == nil && u.Port() == strconv.Itoa(port) {
			return true
		}
	}
	return false
}

// quoteArg quotes a path for a POSIX shell where it needs it.
func quoteArg(s string) string {
	plain := func(r rune) bool {
		return r == '/' || r == '.' || r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
