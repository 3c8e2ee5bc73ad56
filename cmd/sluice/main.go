// Command sluice is the one binary: `sluice start` runs the local stack of a
// Supabase project. This package is wiring: flags, configuration, and the order
// in which the components come up. Nobody imports it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker for releases.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program with its outside handed in; tests call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := newRoot(stdout, stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	fmt.Fprintf(stderr, "sluice: %v\n", err)
	if remedy := remedyOf(err); remedy != "" {
		fmt.Fprintln(stderr, remedy)
	}
	return 1
}

// remedyOf says what to do about what the system refuses. PostgreSQL's programs tell
// theirs as text.
func remedyOf(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), strings.Contains(err.Error(), "No space left on device"):
		return "The disk is full: free space and run the command again. What was there is as it was, and what was begun is taken away."
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return "Sluice keeps its data in .sluice of the project's folder: use one that can be written, with --workdir."
	}
	return ""
}

// exitCode ends the program without another message: what went wrong has been
// printed already.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "A Supabase-compatible backend in one binary",
		Long: `Sluice serves what a stock Supabase client asks for (gateway, Auth, REST and
Realtime) in front of PostgreSQL, from one binary and without Docker.

In a project's folder, with or without supabase/config.toml:

  sluice start            start the local stack and print its addresses and keys
  sluice status -o env    the same values for a shell or an .env file
  sluice migration up     apply new migrations, keeping the data
  sluice db reset         make the database anew from migrations and seed
  sluice stop             stop it; the data stays`,
		Version:       buildVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w\nSee the flags with: %s --help", err, cmd.CommandPath())
	})
	root.PersistentFlags().String("workdir", ".", "the project's folder, the one that holds supabase/")
	root.PersistentFlags().Bool("debug", false, "log every connection and request")
	root.AddCommand(newStart(stdout, stderr), newStatus(stdout, stderr), newStop(stderr), newDB(stdout, stderr), newMigration(stdout, stderr), newSlot(stdout, stderr),
		newBackup(stderr), newRestore(stderr), newLogs(stdout), newDoctor(stdout, stderr), newExplain(stdout, stderr), newWhy(stdout, stderr), newCSP(stdout, stderr))
	return root
}

// noArgs is cobra.NoArgs with the way to the right usage.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return fmt.Errorf("unknown command %q for %q\nSee the commands with: %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())
	}
	return fmt.Errorf("%q takes no arguments, and %q is one\nSee the flags with: %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
}

func buildVersion() string {
	if version != "dev" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "dev-" + s.Value[:12]
			}
		}
	}
	return version
}
