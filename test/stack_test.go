package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit = 90 * time.Second // a first start on a busy machine: initdb, bootstrap, migrations
	stopLimit  = 30 * time.Second
)

// stack is one project folder and the `sluice start` that runs in it.
type stack struct {
	bin  string
	dir  string
	env  []string   // extra environment of the command
	args []string   // extra arguments of start
	log  *logBuffer // standard error: progress and warnings
	out  *logBuffer // standard output: addresses and keys

	mu   sync.Mutex // guards what follows: the control server calls from its own goroutines
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	vars map[string]string
	chat string
}

// newProject makes a folder with the chat example's project, the suite's own
// migrations beside them, and free ports.
func newProject(t *testing.T) *stack {
	t.Helper()
	need(t, postgres())
	dir := t.TempDir()
	supabase := filepath.Join(dir, "supabase")
	for _, from := range []string{"../examples/chat/supabase", "testdata/supabase"} {
		copyFiles(t, from, supabase)
	}
	ports := freePorts(t, 5)
	config := fmt.Sprintf(`project_id = "e2e"
[api]
port = %d
[db]
port = %d
[inbucket]
port = %d
[studio]
port = %d
[db.seed]
sql_paths = ["./seed.sql", "./seed_e2e.sql"]
[auth]
site_url = "http://127.0.0.1:%d"
[auth.rate_limit]
sign_in_sign_ups = 10000
token_refresh = 10000
anonymous_users = 10000
[auth.email]
enable_confirmations = false
`, ports[0], ports[1], ports[3], ports[4], ports[2])
	if err := os.WriteFile(filepath.Join(supabase, "config.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return &stack{bin: sluice(t), dir: dir, args: []string{"--chat"}, log: &logBuffer{}, out: &logBuffer{}}
}

// configure replaces parts of config.toml and adds sections to it.
func (s *stack) configure(t *testing.T, replace map[string]string, more string) {
	t.Helper()
	file := filepath.Join(s.dir, "supabase", "config.toml")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for old, by := range replace {
		if !strings.Contains(text, old) {
			t.Fatalf("config.toml lacks %q", old)
		}
		text = strings.Replace(text, old, by, 1)
	}
	if err := os.WriteFile(file, []byte(text+more), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newStack is a running project; it is stopped when the test ends, and the test
// fails if a process stays behind.
func newStack(t *testing.T) *stack {
	t.Helper()
	s := newProject(t)
	s.start(t)
	return s
}

// start runs the stack and registers its end with the test.
func (s *stack) start(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		pid := s.postmaster()
		if err := s.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if pid > 0 && syscall.Kill(pid, 0) == nil {
			t.Errorf("PostgreSQL, process %d, runs on after sluice has ended", pid)
			_ = syscall.Kill(pid, syscall.SIGQUIT)
		}
		if _, err := s.run("stop", "--no-backup"); err != nil { // a cluster outside of dir would stay
			t.Errorf("delete the data: %v", err)
		}
		if t.Failed() {
			t.Logf("log of sluice, last part:\n%s", s.log.tail(4000))
		}
	})
	if err := s.up(); err != nil {
		t.Fatal(err)
	}
}

// up starts the process and waits for the line that ends a start.
func (s *stack) up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := exec.Command(s.bin, append([]string{"start", "--workdir", s.dir}, s.args...)...)
	cmd.Env = append(environ(), s.env...)
	cmd.Stderr = s.log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start sluice: %w", err)
	}
	ready := make(chan string, 1)
	done := make(chan struct{})
	go func() { // ends with the process; done tells
		defer close(done)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			fmt.Fprintln(s.out, lines.Text())
			if _, url, ok := strings.Cut(lines.Text(), "two browser windows: "); ok {
				ready <- url
			}
		}
		_ = cmd.Wait()
	}()
	s.cmd, s.done = cmd, done
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case s.chat = <-ready:
	case <-done:
		s.cmd = nil
		return fmt.Errorf("sluice start ended: %v\n%s", cmd.ProcessState, s.log.tail(8000))
	case <-limit.C:
		_ = cmd.Process.Kill()
		return fmt.Errorf("sluice start was not ready within %s\n%s", startLimit, s.log.tail(8000))
	}
	out, err := s.run("status", "-o", "json")
	if err != nil {
		return err
	}
	s.vars = map[string]string{}
	if err := json.Unmarshal([]byte(out), &s.vars); err != nil {
		return fmt.Errorf("read status -o json: %w\n%s", err, out)
	}
	return nil
}

// run runs another command of the binary in the folder and returns its output.
func (s *stack) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.bin, append(args, "--workdir", s.dir)...)
	cmd.Env = append(environ(), s.env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("sluice %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// stop ends the process as Ctrl-C does.
func (s *stack) stop() error { return s.signal(syscall.SIGINT) }

// kill ends it as a crash does.
func (s *stack) kill() error { return s.signal(syscall.SIGKILL) }

// keepLog saves the stack's log from the end of its folder.
func (s *stack) keepLog(t *testing.T) {
	t.Helper()
	f, err := os.CreateTemp("", "sluice-*.log")
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	text, err := os.ReadFile(filepath.Join(s.dir, ".sluice", "sluice.log"))
	if err == nil {
		_, err = f.Write(text)
	}
	t.Logf("the stack's log is in %s (%v)", f.Name(), err)
}

func (s *stack) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	defer func() { s.cmd = nil }()
	_ = s.cmd.Process.Signal(sig)
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-s.done:
	case <-limit.C:
		_ = s.cmd.Process.Kill()
		<-s.done
		return fmt.Errorf("sluice did not end within %s of %v", stopLimit, sig)
	}
	if code := s.cmd.ProcessState.ExitCode(); sig != syscall.SIGKILL && code != 0 {
		return fmt.Errorf("sluice ended with exit code %d", code)
	}
	return nil
}

// cluster returns the folder of the stack's PostgreSQL. It is another one than
// .sluice/pg when the server's user may not enter that.
func (s *stack) cluster() string {
	data := filepath.Join(s.dir, ".sluice", "pg")
	if elsewhere, err := os.ReadFile(filepath.Join(data, "LOCATION")); err == nil {
		return strings.TrimSpace(string(elsewhere))
	}
	return data
}

// postmaster returns the process id of the stack's PostgreSQL, 0 if none runs.
func (s *stack) postmaster() int {
	text, err := os.ReadFile(filepath.Join(s.cluster(), "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || syscall.Kill(pid, 0) != nil {
		return 0
	}
	return pid
}

// environ is the environment without settings that would change the project
// under test.
func environ() []string {
	var out []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SUPABASE_") {
			out = append(out, v)
		}
	}
	return out
}

// logBuffer is what the process wrote, readable while it runs.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBuffer) tail(n int) string {
	text := b.String()
	if len(text) > n {
		return "…" + text[len(text)-n:]
	}
	return text
}

// freePorts returns n ports that are free now. They are below the range from
// which the kernel takes ports for outgoing connections, so that none of ours
// is taken by chance between here and the start.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	base := 20000 + os.Getpid()%8000
	for port := base; len(ports) < n && port < base+4000; port++ {
		if taken[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		taken[port] = true
		ports = append(ports, port)
	}
	if len(ports) < n {
		t.Fatalf("no %d free ports from %d on", n, base)
	}
	return ports
}

// taken are the ports handed out; tests of this package do not run in parallel.
var taken = map[int]bool{}

// eventually asks fn until it returns nil.
func eventually(t *testing.T, limit time.Duration, fn func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(limit)
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %s: %v", limit, err)
		}
		<-tick.C
	}
}

func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && rel != "." {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}
