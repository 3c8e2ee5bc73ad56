package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sluice-dev/sluice/devpg"
	"github.com/sluice-dev/sluice/token"
)

// TestMain makes the binary of the scripts' command sluice.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sluice": main})
}

// TestScripts runs testdata/*.txtar. Each has ports of its own, in the
// environment of its commands; stacks that it leaves are stopped. Commands of
// ours:
//
//	await COMMAND...        run it until it succeeds
//	kill9 DIR               end DIR's stack as a crash does
//	hold PORT               listen on it until the script ends
//	query WANT SQL          run SQL as role postgres; compare its one value, or
//	                        "done" when there is none
//	get STATUS PATH         ask the API with $API_KEY
//	free-ports FILE CONFIG  write the ports that an error proposes into a config.toml
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		WorkdirRoot:   room(t),
		Setup:         setup,
		Condition:     condition,
		UpdateScripts: os.Getenv("UPDATE") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": await, "kill9": kill9, "hold": hold, "query": query, "get": get, "free-ports": freePortsOf,
		},
		RequireUniqueNames: true,
	})
}

// room returns a folder that PostgreSQL's user can enter, with a name that needs
// quotes.
func room(t *testing.T) string {
	base, err := os.MkdirTemp("", "sluice-test-")
	if err == nil {
		err = os.Chmod(base, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir := filepath.Join(base, "it's here")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func condition(cond string) (bool, error) {
	switch cond {
	case "postgres":
	case "tmpfs":
		return mounts(), nil
	default:
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	_, err := devpg.Find(context.Background())
	if err != nil && os.Getenv("SLUICE_TEST_PG") == "required" {
		return false, err
	}
	return err == nil, nil
}

// mounts reports whether this process may mount a file system.
func mounts() bool {
	dir, err := os.MkdirTemp("", "sluice-mount-")
	if err != nil {
		return false
	}
	defer os.Remove(dir)
	return exec.Command("mount", "-t", "tmpfs", "tmpfs", dir).Run() == nil && exec.Command("umount", dir).Run() == nil
}

func setup(env *testscript.Env) error {
	ports, err := freePorts(5)
	if err != nil {
		return err
	}
	for i, name := range []string{"API_PORT", "DB_PORT", "SITE_PORT", "MAIL_PORT", "STUDIO_PORT"} {
		env.Setenv(name, strconv.Itoa(ports[i]))
	}
	env.Setenv("SUPABASE_API_PORT", strconv.Itoa(ports[0]))
	env.Setenv("SUPABASE_DB_PORT", strconv.Itoa(ports[1]))
	env.Setenv("SUPABASE_INBUCKET_PORT", strconv.Itoa(ports[3]))
	env.Setenv("SUPABASE_STUDIO_PORT", strconv.Itoa(ports[4]))
	env.Setenv("API_KEY", token.DevPublishableKey)
	env.Setenv("SLUICE_PG_BIN", os.Getenv("SLUICE_PG_BIN"))
	program, err := exec.LookPath("sluice")
	if err != nil {
		return err
	}
	env.Setenv("SLUICE_DIR", filepath.Dir(program))
	// One process of the test's, as the background ones get the interrupt too.
	env.Defer(func() {
		for _, dir := range stacks(env.WorkDir) {
			cmd := exec.Command("sluice", "stop", "--no-backup", "--workdir", dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "stop the stack in %s: %v\n%s", dir, err, out)
			}
		}
	})
	return nil
}

// stacks lists the folders below root in which something was started.
func stacks(root string) []string {
	var out []string
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".sluice" {
			out = append(out, filepath.Dir(path))
			return filepath.SkipDir
		}
		return nil
	})
	return out
}

var taken = struct {
	sync.Mutex
	next int
}{next: 16000 + os.Getpid()%3000}

// freePorts returns ports below those that the kernel gives to outgoing
// connections.
func freePorts(n int) ([]int, error) {
	taken.Lock()
	defer taken.Unlock()
	var out []int
	for range 1000 {
		taken.next++
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(taken.next)))
		if err != nil {
			continue
		}
		l.Close()
		if out = append(out, taken.next); len(out) == n {
			taken.next += 15 // those that an error proposes in their place are nobody else's
			return out, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports", n)
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: await COMMAND...")
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			ts.Fatalf("%s: after a minute: %v", strings.Join(args, " "), err)
		}
	}
}

func kill9(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: kill9 DIR")
	}
	f, err := openFolder(ts.MkAbs(args[0]))
	ts.Check(err)
	s, err := f.readState()
	ts.Check(err)
	p, err := os.FindProcess(s.PID)
	ts.Check(err)
	ts.Check(p.Kill())
	// The lock is free when it has ended.
	l := f.lock()
	_, err = l.TryLockContext(context.Background(), 5*time.Millisecond)
	ts.Check(err)
	ts.Check(l.Unlock())
}

func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hold PORT")
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", args[0]))
	ts.Check(err)
	ts.Setenv("HOLDER", strconv.Itoa(os.Getpid()))
	ts.Defer(func() { l.Close() })
}

func query(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: query WANT SQL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, "postgresql://postgres:postgres@127.0.0.1:"+ts.Getenv("DB_PORT")+"/postgres")
	ts.Check(err)
	defer conn.Close(ctx)
	got := "done"
	if err := conn.QueryRow(ctx, args[1]).Scan(&got); !errors.Is(err, pgx.ErrNoRows) {
		ts.Check(err)
	}
	if got != args[0] {
		ts.Fatalf("%s: got %q, want %q", args[1], got, args[0])
	}
}

func get(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: get STATUS PATH")
	}
	req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+ts.Getenv("API_PORT")+args[1], nil)
	ts.Check(err)
	req.Header.Set("apikey", ts.Getenv("API_KEY"))
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer res.Body.Close()
	if strconv.Itoa(res.StatusCode) != args[0] {
		ts.Fatalf("GET %s: got %s, want %s", args[1], res.Status, args[0])
	}
}

func freePortsOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: free-ports FILE CONFIG")
	}
	text := ts.ReadFile(args[0])
	i := strings.Index(text, "\n[")
	if i < 0 {
		ts.Fatalf("no ports in %q", text)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text[i:]), 0o644))
}
