//go:build unix

package devpg_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-dev/sluice/devpg"
)

func kill(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("signal process %d: %v", pid, err)
	}
}

// gone reports whether a process has ended, reaped or not: orphans are left to
// process 1, and not every container's process 1 reaps.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	return err == nil && strings.HasPrefix(after, "Z")
}

// TestStalePidFile starts beside files that speak of nobody.
func TestStalePidFile(t *testing.T) {
	t.Parallel()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	dir := cluster(t)
	s := server(t, config(t, dir))
	for name, text := range map[string]string{
		"ended":  fmt.Sprintf("%d\n/elsewhere\n", ended.Process.Pid),
		"broken": "not a number\n",
		"empty":  "",
	} {
		if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Start(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		stop(t, s)
	}
}

// TestForeignPid: the process id in the file belongs to somebody else by now.
// Neither a stranger nor the server of another cluster is touched.
func TestForeignPid(t *testing.T) {
	t.Parallel()
	stranger := exec.Command("cat")
	stdin, err := stranger.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	first := cluster(t)
	other := server(t, config(t, first))
	start(t, other)

	dir := cluster(t)
	s := server(t, config(t, dir))
	for name, pid := range map[string]int{"stranger": stranger.Process.Pid, "other cluster": postmaster(t, first)} {
		if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), fmt.Appendf(nil, "%d\n%s\n", pid, dir), 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, s)
		if devpg.RunsOn(pid, dir) {
			t.Errorf("%s: process %d counts as a server of %s", name, pid, dir)
		}
		stop(t, s)
	}
	value(t, other, "select 'x'")
	stdin.Close()
	if err := stranger.Wait(); err != nil {
		t.Errorf("the stranger was not left alone: %v", err)
	}
}

// TestKilledPostmaster: kill -9 leaves a child at work, which does not see that
// its server is gone. The next start ends it before it recovers.
func TestKilledPostmaster(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("here the children of a killed server cannot be told; see processesOf")
	}
	dir := cluster(t)
	s := server(t, config(t, dir))
	start(t, s)
	execute(t, s, "create table kept as select 1 as id")
	conn := connect(t, s)
	defer conn.Close(context.Background())
	backend := int(conn.PgConn().PID())
	busy := make(chan error, 1)
	go func() { // ends with the backend
		_, err := conn.Exec(context.Background(), "select sum(a) from generate_series(1, 100000000000) a")
		busy <- err
	}()
	eventually(t, "busy", func() bool {
		return value(t, s, fmt.Sprintf("select coalesce(max(state), '') from pg_stat_activity where pid = %d", backend)) == "active"
	})
	kill(t, postmaster(t, dir), syscall.SIGKILL)
	<-s.Done()
	start(t, s)
	if err := <-busy; err == nil {
		t.Error("the query of the killed server came to an end")
	}
	if !gone(backend) {
		t.Errorf("backend %d of the killed server is still there", backend)
	}
	if got := value(t, s, "select count(*)::text from kept"); got != "1" {
		t.Errorf("rows after recovery: %s", got)
	}
}

// TestLostPidFile: as above, and somebody has deleted postmaster.pid, by which a
// new server would have seen the old one's children.
func TestLostPidFile(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("here a server without a pid file cannot be found; see processesOf")
	}
	dir := cluster(t)
	cfg := config(t, dir)
	first := server(t, cfg)
	start(t, first)
	pid := postmaster(t, dir)
	if err := os.Remove(filepath.Join(dir, "postmaster.pid")); err != nil {
		t.Fatal(err)
	}
	cfg.Port = port(t)
	second := server(t, cfg)
	start(t, second)
	<-first.Done()
	if !gone(pid) {
		t.Errorf("two servers on one folder: %d and %d", pid, postmaster(t, dir))
	}
	value(t, second, "select 'x'")
}

// TestKilledParent: the server ends with the process that started it, and a
// predecessor that did not is ended by the next start.
func TestKilledParent(t *testing.T) {
	t.Parallel()
	dir := cluster(t)
	c := startChild(t, childSpec{DataDir: dir, Port: port(t)})
	if said := <-c.lines; said != "ready\n" {
		t.Fatalf("child: %s", said)
	}
	pid := postmaster(t, dir)
	kill(t, c.Process.Pid, syscall.SIGKILL)
	_ = c.Wait() // it was killed
	if runtime.GOOS == "linux" {
		eventually(t, "the end of the server", func() bool { return gone(pid) })
	}
	s := server(t, config(t, dir))
	start(t, s)
	if !gone(pid) {
		t.Errorf("the killed process's server, %d, is still there", pid)
	}
	value(t, s, "select 'x'")
}

// TestPredecessor: a server that outlives its parent (here: because the parent
// still lives) is ended by the next start on the folder.
func TestPredecessor(t *testing.T) {
	t.Parallel()
	dir := cluster(t)
	c := startChild(t, childSpec{DataDir: dir, Port: port(t)})
	if said := <-c.lines; said != "ready\n" {
		t.Fatalf("child: %s", said)
	}
	pid := postmaster(t, dir)
	cfg := config(t, dir)
	said := ""
	cfg.Progress = func(line string) { said += line + "\n" }
	s := server(t, cfg)
	start(t, s)
	if !gone(pid) {
		t.Errorf("the earlier server, %d, is still there", pid)
	}
	wantError(t, errors.New(said), fmt.Sprintf("Ending a PostgreSQL (pid %d)", pid))
	value(t, s, "select 'x'")
}

// TestInterruptedInitdb: a first start that is cut off, by a deadline or by
// kill -9, leaves nothing that the next one would take for a cluster.
func TestInterruptedInitdb(t *testing.T) {
	t.Parallel()
	half := func(dir string) func() bool {
		return func() bool {
			found, err := filepath.Glob(dir + ".new-*/data/base")
			return err == nil && len(found) > 0
		}
	}
	left := func(dir string) []string {
		found, _ := filepath.Glob(dir + ".new-*") // the pattern is well-formed
		return found
	}
	t.Run("context", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(room(t), "pg")
		s := server(t, config(t, dir))
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() { // ends with Start
			_, err := s.Start(ctx)
			failed <- err
		}()
		eventually(t, "half way", half(dir))
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("start that was cut off: %v", err)
		}
		if found := left(dir); len(found) > 0 {
			t.Errorf("what was half made: %q", found)
		}
		if !start(t, s) {
			t.Error("the next start found a cluster")
		}
	})
	t.Run("kill", func(t *testing.T) {
		t.Parallel()
		need(t, findable())
		dir := filepath.Join(room(t), "pg")
		c := startChild(t, childSpec{DataDir: dir, Port: port(t)})
		eventually(t, "half way", half(dir))
		kill(t, c.Process.Pid, syscall.SIGKILL)
		_ = c.Wait() // it was killed
		s := server(t, config(t, dir))
		if !start(t, s) {
			t.Error("the next start found a cluster")
		}
		value(t, s, "select 'x'")
		// The killed one's initdb may still be clearing up while this one begins.
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := devpg.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if found := left(dir); len(found) > 0 {
			t.Errorf("what was half made: %q", found)
		}
	})
}

func findable() error {
	_, err := devpg.Find(context.Background())
	return err
}

// TestRemove deletes a cluster and what interrupted starts have left of one.
func TestRemove(t *testing.T) {
	t.Parallel()
	dir := bare(t)
	if err := os.MkdirAll(filepath.Join(dir+".new-123", "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := devpg.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := devpg.Remove(dir); err != nil {
		t.Errorf("remove of what is not there: %v", err)
	}
}
