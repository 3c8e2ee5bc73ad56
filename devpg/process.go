package devpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// process is a running postmaster.
type process struct {
	pid  int
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startProcess starts cmd so that it does not outlive this process, where the
// system can do that. The kernel sends the signal when the thread that started
// the child ends, so one thread is kept for as long as the child lives.
func startProcess(cmd *exec.Cmd) (*process, error) {
	tie(cmd)
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() { // ends with the child; Stop waits for done
		runtime.LockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		_ = cmd.Wait() // how it ended stands in its log
		close(p.done)
	}()
	return p, <-started
}

// tiedOutput runs cmd to its end so that it does not outlive this process, and
// returns what it printed.
func tiedOutput(cmd *exec.Cmd) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tie(cmd)
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	cmd.WaitDelay = 5 * time.Second // for what holds the output and got away
	return cmd.CombinedOutput()
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) stop(ctx context.Context) error {
	if err := fastShutdown(p.cmd.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop postgres: %w", err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	_ = immediateShutdown(p.cmd.Process)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return fmt.Errorf("postgres did not stop in time and was ended at once: %w", ctx.Err())
}

// pidFile is what a postmaster writes into its data folder.
type pidFile struct {
	pid    int
	status string // starting, stopping, ready, standby
}

func readPidFile(dir string) (pidFile, error) {
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return pidFile{}, fmt.Errorf("postmaster.pid says %q", lines[0])
	}
	p := pidFile{pid: pid}
	if len(lines) > 7 {
		p.status = strings.TrimSpace(lines[7])
	}
	return p, nil
}

// endPredecessor ends a server that still runs on the folder although its Sluice
// is gone, and removes a pid file that belongs to nobody.
func (s *Server) endPredecessor(ctx context.Context) error {
	p, err := readPidFile(s.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err == nil && runsOn(p.pid, s.dir):
		s.cfg.Progress(fmt.Sprintf("Ending a PostgreSQL (pid %d) that an earlier Sluice left behind...", p.pid))
		if err := end(ctx, p.pid, s.dir, fastShutdown, 10*time.Second); err != nil {
			return err
		}
	default:
		s.cfg.Logger.Info("removing a stale postmaster.pid", "pid", p.pid)
	}
	// A postmaster that was killed leaves its children to notice; a new one does
	// not start beside them. And somebody may have deleted the pid file.
	if err := s.endProcesses(ctx); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.dir, "postmaster.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale pid file: %w", err)
	}
	return nil
}

// endProcesses waits for all processes that work on the cluster, and ends those
// that do not go by themselves.
func (s *Server) endProcesses(ctx context.Context) error {
	for _, pid := range processesOf(s.dir) {
		s.cfg.Logger.Info("ending a process that an earlier PostgreSQL left behind", "pid", pid)
		if err := end(ctx, pid, s.dir, noSignal, 2*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func noSignal(*os.Process) error { return nil }

// end ends a process on a cluster's folder: gently first, then with force.
func end(ctx context.Context, pid int, dir string, gently func(*os.Process) error, patience time.Duration) error {
	proc, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	for _, step := range []struct {
		end  func(*os.Process) error
		wait time.Duration
	}{{gently, patience}, {immediateShutdown, 5 * time.Second}, {(*os.Process).Kill, 5 * time.Second}} {
		if err := step.end(proc); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
		wait, cancel := context.WithTimeout(ctx, step.wait)
		gone := poll(wait, func() bool { return !runsOn(pid, dir) })
		cancel()
		if gone {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("PostgreSQL with pid %d on %s does not end", pid, dir)
}

// poll asks until the answer is yes or ctx ends.
func poll(ctx context.Context, ask func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// portFree says who holds a port that is taken.
func portFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("port %d for PostgreSQL is taken%s: %w\nSet another one as port in [db] of supabase/config.toml, or end the other program", port, Holder(port), err)
	}
	return l.Close()
}

// Holder returns " by NAME (pid N)" for the program that listens on a loopback
// port, or "" when that cannot be found out.
func Holder(port int) string {
	pid, name := listener(port)
	if pid == 0 {
		return ""
	}
	return fmt.Sprintf(" by %s (pid %d)", name, pid)
}

// freePort returns a loopback port that is free at this moment.
func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
