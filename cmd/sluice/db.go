package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newDB(stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "db",
		Short: "Work with the local database",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDBReset(stderr))
	return cmd
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
