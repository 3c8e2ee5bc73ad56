package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/sluice-dev/sluice/devpg"
)

func newDB(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "db",
		Short: "Work with the local database",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDBReset(stderr), newDBURL(stdout), newDBPsql())
	return cmd
}

// databaseURL is the database of the stack that runs in --workdir, as role
// postgres.
func databaseURL(cmd *cobra.Command) (string, error) {
	s, err := runningStack(cmd)
	if err != nil {
		return "", err
	}
	for _, v := range s.Vars {
		if v.ID == "db.url" {
			return v.Value, nil
		}
	}
	return "", errors.New("the running stack names no database; was it started by another version of sluice?")
}

func newDBURL(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "url",
		Short: "Print the URL of the running stack's database",
		Long: `Prints the connection string of the running stack's database, as role postgres,
and nothing else: it can be handed to any PostgreSQL client.

  psql "$(sluice db url)"
  DATABASE_URL="$(sluice db url)" npm run dev
  pg_dump "$(sluice db url)" --schema-only > schema.sql

The exit code is 1 when nothing runs.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := databaseURL(cmd)
			if err != nil {
				return err
			}
			fmt.Fprintln(stdout, u)
			return nil
		},
	}
}

func newDBPsql() *cobra.Command {
	return &cobra.Command{
		Use:   "psql [-- ARGUMENTS]",
		Short: "Open psql on the running stack's database",
		Long: `Runs psql on the running stack's database as role postgres, with the arguments
after --. Its input, output and exit code are psql's.

  sluice db psql
  sluice db psql -- -c 'select * from auth.users'
  sluice db psql -- -v ON_ERROR_STOP=1 -f data.sql

psql is taken from PATH, else from the folder of the PostgreSQL server binaries.
Where there is none, sluice db url gives any other client the address.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return fmt.Errorf("put psql's arguments behind two dashes: sluice db psql -- %s", args[0])
			}
			raw, err := databaseURL(cmd)
			if err != nil {
				return err
			}
			path, err := findPsql(cmd.Context())
			if err != nil {
				return err
			}
			target, password, err := withoutPassword(raw)
			if err != nil {
				return err
			}
			return become(path, append([]string{"psql", "--dbname=" + target}, args...), append(os.Environ(), "PGPASSWORD="+password))
		},
	}
}

// findPsql looks on PATH, then beside the server binaries.
func findPsql(ctx context.Context) (string, error) {
	if path, err := exec.LookPath("psql"); err == nil {
		return path, nil
	}
	if b, err := devpg.Find(ctx); err == nil {
		if path, err := exec.LookPath(b.Program("psql")); err == nil {
			return path, nil
		}
	}
	return "", errors.New("psql is neither on PATH nor beside the PostgreSQL server binaries; " +
		"install PostgreSQL's client (Debian: postgresql-client, Homebrew: libpq), or give the address of `sluice db url` to another client")
}

// withoutPassword divides a URL, so that the list of processes shows no password.
func withoutPassword(raw string) (target, password string, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", "", errors.New("the running stack's database URL cannot be read")
	}
	password, _ = u.User.Password()
	u.User = url.User(u.User.Username())
	return u.String(), password, nil
}

func newDBReset(stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Make the local database anew from roles, migrations and seed",
		Long: `Deletes all data of the running stack's database, and applies
supabase/roles.sql, supabase/migrations and the seed to a new one. The stack
keeps its addresses and keys: requests that come meanwhile wait, and connected
sockets are closed and join again by themselves.

When a script fails, its error is shown and the database holds what came before
it. Mend the file and reset again.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			noSeed, _ := cmd.Flags().GetBool("no-seed")
			f, err := openFolder(flag(cmd, "workdir"))
			if err != nil {
				return err
			}
			s, err := f.running()
			if err != nil {
				return err
			}
			if s == nil {
				return errors.New("no stack is running in this folder; start it with `sluice start`, or delete its data with `sluice stop --no-backup`")
			}
			if err := askReset(cmd.Context(), s, noSeed, stderr); err != nil {
				return err
			}
			fmt.Fprintln(stderr, "Finished sluice db reset.")
			return nil
		},
	}
	cmd.Flags().Bool("no-seed", false, "skip the seed")
	return cmd
}
