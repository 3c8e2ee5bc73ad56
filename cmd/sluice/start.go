package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

func newStart(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Start the local stack of the project in this folder",
		Long: `Starts PostgreSQL, gateway, Auth, REST and Realtime for the project in this
folder, on 127.0.0.1, and prints addresses and keys. The first start makes the
database and applies supabase/roles.sql, supabase/migrations and the seed; later
starts use it as it is. Without a supabase/ folder the defaults of the Supabase
CLI apply.

The stack runs in the foreground until Ctrl-C; --detach leaves it running.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := startOptions{stdout: stdout, stderr: stderr}
			o.detach, _ = cmd.Flags().GetBool("detach")
			o.chat, _ = cmd.Flags().GetBool("chat")
			o.readyFD, _ = cmd.Flags().GetInt("ready-fd")
			o.debug, _ = cmd.InheritedFlags().GetBool("debug")
			o.workdir = flag(cmd, "workdir")
			say := newProgress(o)
			return say.failure(start(cmd.Context(), o, say))
		},
	}
	cmd.Flags().BoolP("detach", "d", false, "return once everything answers; the command stop ends it")
	cmd.Flags().Bool("chat", false, "also serve the chat example's page on the port of [auth] site_url")
	cmd.Flags().Int("ready-fd", 0, "file descriptor that is told when everything answers")
	_ = cmd.Flags().MarkHidden("ready-fd")
	return cmd
}

type startOptions struct {
	workdir        string
	detach, chat   bool
	debug          bool
	readyFD        int
	stdout, stderr io.Writer
}

// start runs the stack in the foreground, or hands over to a process of its own.
func start(ctx context.Context, o startOptions, say *progress) error {
	f, err := openFolder(o.workdir)
	if err != nil {
		return err
	}
	if err := f.create(); err != nil {
		return err
	}
	s, err := f.running()
	if err != nil {
		return err
	}
	if s != nil {
		fmt.Fprintln(o.stderr, "Sluice is already running in this folder.")
		return printStarted(o.stdout, s)
	}
	if o.detach {
		return startDetached(ctx, f, o)
	}
	lock := f.lock()
	if got, err := lock.TryLock(); err != nil || !got {
		return errStarting
	}
	defer lock.Unlock() //nolint:errcheck // released by the kernel at the latest
	if err := f.writeState(state{PID: os.Getpid()}); err != nil {
		return err
	}
	defer f.removeState()
	return runStack(ctx, f, o, say)
}

// printStarted ends the output of a start: boxes of addresses and keys, and
// the page to open as the last line.
func printStarted(w io.Writer, s *state) error {
	if err := writeStatus(w, "pretty", s.Vars); err != nil {
		return err
	}
	if s.Chat != "" {
		fmt.Fprintf(w, "\nOpen the chat in two browser windows: %s\n", s.Chat)
	}
	return nil
}

// startDetached starts this program again in a session of its own, relays its
// progress, and returns when it is ready or has failed.
func startDetached(ctx context.Context, f *folder, o startOptions) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	logFile, err := os.OpenFile(f.logFile(), os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer logFile.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer r.Close()
	args := []string{"start", "--workdir", f.workdir, "--ready-fd", "3"}
	if o.chat {
		args = append(args, "--chat")
	}
	if o.debug {
		args = append(args, "--debug")
	}
	cmd := exec.Command(exe, args...) // outlives ctx on purpose
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{w}
	background(cmd)
	if err := cmd.Start(); err != nil {
		w.Close()
		return fmt.Errorf("start in the background: %w", err)
	}
	w.Close()
	stopRelay := context.AfterFunc(ctx, func() { _ = terminate(cmd.Process.Pid); r.Close() })
	defer stopRelay()
	ready := false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if ready = lines.Text() == readyLine; ready {
			break
		}
		fmt.Fprintln(o.stderr, lines.Text())
	}
	if !ready {
		_ = cmd.Wait()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("start in the background failed; the whole log is in %s", f.logFile())
	}
	s, err := f.readState()
	if err != nil {
		return err
	}
	_ = cmd.Process.Release()
	return printStarted(o.stdout, s)
}

// readyLine ends the progress on --ready-fd; without it the start has failed.
const readyLine = "ready"

// progress tells a person what is being done: on standard error, to the process
// that waits for a detached start, and to a command that asked for something.
type progress struct {
	w     io.Writer
	extra *os.File

	mu        sync.Mutex
	following func(line string) // guarded by mu
}

func newProgress(o startOptions) *progress {
	p := &progress{w: o.stderr}
	if o.readyFD > 2 {
		p.extra = os.NewFile(uintptr(o.readyFD), "ready")
	}
	return p
}

func (p *progress) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.w, line)
	if p.extra != nil {
		fmt.Fprintln(p.extra, line)
	}
	if p.following != nil {
		p.following(line)
	}
}

// follow gives further lines to fn as well, until it is called with nil.
func (p *progress) follow(fn func(line string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.following = fn
}

// failure tells the process that waits for a detached start why there is none.
// Standard error is the log's there.
func (p *progress) failure(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && p.extra != nil {
		fmt.Fprintf(p.extra, "sluice: %v\n", err)
	}
	return err
}

func (p *progress) ready() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.extra != nil {
		fmt.Fprintln(p.extra, readyLine)
		p.extra.Close()
		p.extra = nil
	}
}

// within bounds a clean-up that must run although ctx has ended.
func within(d time.Duration, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	err := fn(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("after %s: %w", d, err)
	}
	return err
}
