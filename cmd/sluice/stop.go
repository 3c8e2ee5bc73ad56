package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func newStop(stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop the running stack; the data stays",
		Long: `Stops the stack that runs in this folder. Data stays and the next start uses it
again; --no-backup deletes the database.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			noBackup, _ := cmd.Flags().GetBool("no-backup")
			f, err := openFolder(flag(cmd, "workdir"))
			if err != nil {
				return err
			}
			return stop(cmd.Context(), f, noBackup, stderr)
		},
	}
	cmd.Flags().Bool("no-backup", false, "delete the database of this project")
	return cmd
}

// stopDeadline bounds the wait for a clean shutdown: sockets are told, then
// PostgreSQL gets a fast shutdown with a checkpoint.
const stopDeadline = 30 * time.Second

func stop(ctx context.Context, f *folder, noBackup bool, stderr io.Writer) error {
	s, err := f.running()
	if err != nil && !errors.Is(err, errStarting) {
		return err
	}
	switch {
	case s != nil:
		fmt.Fprintf(stderr, "Stopping Sluice (pid %d)...\n", s.PID)
		if err := terminate(s.PID); err != nil {
			return fmt.Errorf("stop process %d: %w", s.PID, err)
		}
	case err == nil:
		fmt.Fprintln(stderr, "Nothing is running in this folder.")
	}
	if !f.exists() {
		return nil
	}
	// The lock is free when the process has ended, whichever way.
	wait, cancel := context.WithTimeout(ctx, stopDeadline)
	defer cancel()
	l := f.lock()
	got, err := l.TryLockContext(wait, 20*time.Millisecond)
	if err != nil || !got {
		return fmt.Errorf("wait for the stack in %s to end: still running after %s", f.workdir, stopDeadline)
	}
	defer l.Unlock() //nolint:errcheck // the process ends
	if noBackup {
		if err := f.removeDatabase(); err != nil {
			return fmt.Errorf("delete the database: %w", err)
		}
		fmt.Fprintln(stderr, "Deleted the database of this project.")
	}
	if s != nil {
		fmt.Fprintln(stderr, "Stopped Sluice local development setup.")
	}
	return nil
}
