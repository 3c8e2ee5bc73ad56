//go:build unix

package devpg_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/devpg"
	"github.com/sluice-dev/sluice/internal/leak"
)

// TestMain is also the program of the children that tests kill.
func TestMain(m *testing.M) {
	if spec := os.Getenv("DEVPG_TEST_CHILD"); spec != "" {
		os.Exit(childMain(spec))
	}
	code := leak.Run(m)
	if template.dir != "" {
		os.RemoveAll(template.dir)
	}
	os.Exit(code)
}

// room returns a folder that the server's user can enter; t.TempDir's is not.
func room(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "devpg-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// template is a cluster that has been started and stopped once.
var template struct {
	once sync.Once
	dir  string
	err  error
}

// cluster returns the data folder of a stopped cluster of t's own.
func cluster(t testing.TB) string {
	t.Helper()
	template.once.Do(func() { template.dir, template.err = makeTemplate(t) })
	need(t, template.err)
	dir := filepath.Join(room(t), "pg")
	if out, err := exec.Command("cp", "-Rp", filepath.Join(template.dir, "pg"), dir).CombinedOutput(); err != nil {
		t.Fatalf("copy cluster: %v\n%s", err, out)
	}
	return dir
}

// bare returns a data folder that passes for a cluster until a server looks at
// it, for tests that end before that: copying a real one takes a second.
func bare(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(room(t), "pg")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	version := fmt.Sprintln(config(t, dir).Binaries.Version)
	if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte(version), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		uid, gid, err := devpg.ServerIDs()
		need(t, err)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func makeTemplate(t testing.TB) (string, error) {
	dir, err := os.MkdirTemp("", "devpg-test-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	s, err := devpg.New(config(t, filepath.Join(dir, "pg")))
	if err != nil {
		return dir, err
	}
	if _, err := s.Start(context.Background()); err != nil {
		return dir, err
	}
	return dir, s.Stop(context.Background())
}

// need skips t when there are no server binaries, or fails it where they are
// required.
func need(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, devpg.ErrNoBinaries) && os.Getenv("SLUICE_TEST_PG") != "required":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// quick makes starts and commits cheap where durability is not the question.
var quick = map[string]string{"fsync": "off", "max_wal_size": "16MB", "min_wal_size": "2MB", "shared_buffers": "16MB"}

// initArgs make a cluster small to copy.
var initArgs = []string{"--wal-segsize=1"}

func config(t testing.TB, dataDir string) devpg.Config {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	bin, err := devpg.Find(ctx) // a missing server skips instead of fetching one
	need(t, err)
	return devpg.Config{
		DataDir: dataDir, Port: port(t), Settings: quick, Binaries: bin, InitArgs: initArgs,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// server returns a server that is stopped at the end of t.
func server(t testing.TB, cfg devpg.Config) *devpg.Server {
	t.Helper()
	s, err := devpg.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

// start starts s and returns whether the cluster was made.
func start(t testing.TB, s *devpg.Server) (fresh bool) {
	t.Helper()
	fresh, err := s.Start(t.Context())
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	return fresh
}

func stop(t testing.TB, s *devpg.Server) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatalf("stop: %v", err)
	}
}

// execute runs SQL as the superuser.
func execute(t testing.TB, s *devpg.Server, sql string) {
	t.Helper()
	conn := connect(t, s)
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// value returns the only value of a query, as text.
func value(t testing.TB, s *devpg.Server, sql string) string {
	t.Helper()
	conn := connect(t, s)
	defer conn.Close(context.Background())
	var v string
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func connect(t testing.TB, s *devpg.Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("supabase_admin", "postgres"))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	return conn
}

// taken are the ports handed out by this process.
var taken = struct {
	sync.Mutex
	next int
}{next: 12000 + os.Getpid()%4000}

// port returns a free port below those that the kernel gives to outgoing
// connections.
func port(t testing.TB) int {
	t.Helper()
	taken.Lock()
	defer taken.Unlock()
	for range 1000 {
		taken.next++
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(taken.next)))
		if err == nil {
			l.Close()
			return taken.next
		}
	}
	t.Fatal("no free port")
	return 0
}

// postmaster returns the process id in a data folder's postmaster.pid.
func postmaster(t testing.TB, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// eventually asks until the answer is yes.
func eventually(t testing.TB, what string, ask func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("after a minute: not %s", what)
		}
	}
}

// wantError checks that err speaks of everything in words.
func wantError(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in the error: %v", w, err)
		}
	}
}

// child is a process of its own that starts a server, as sluice does.
type child struct {
	*exec.Cmd
	stdin io.WriteCloser
	lines chan string // what it prints; closed at its end
}

type childSpec struct {
	DataDir string
	Port    int
	Umask   int // 0: as it is
}

// startChild runs childMain. The child ends when t does.
func startChild(t testing.TB, spec childSpec) *child {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DEVPG_TEST_CHILD="+string(text))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{Cmd: cmd, stdin: stdin, lines: make(chan string, 1)}
	go func() { // ends with the child's output; waited for by whoever drains lines
		defer close(c.lines)
		text, _ := io.ReadAll(stdout) // the child prints once
		if len(text) > 0 {
			c.lines <- string(text)
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		<-c.lines
		_ = cmd.Wait() // it was killed, or Wait was called already
	})
	return c
}

// childMain starts a server, says how that went, and ends when its standard
// input does.
func childMain(text string) int {
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if spec.Umask != 0 {
		syscall.Umask(spec.Umask)
	}
	s, err := devpg.New(devpg.Config{DataDir: spec.DataDir, Port: spec.Port, Settings: quick, InitArgs: initArgs, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		_, err = s.Start(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	os.Stdout.Close()
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := s.Stop(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
