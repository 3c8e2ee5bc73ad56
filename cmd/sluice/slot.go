package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/wal"
)

func newSlot(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "slot",
		Short: "Look at the replication slot, or drop it",
		Long: `Sluice reads row changes from a permanent replication slot: PostgreSQL keeps
everything that the slot's reader has not confirmed. A slot that nobody reads any
more keeps WAL until the disk is full: drop it when Sluice is taken away from a
database.

The database is the running stack's of this folder, or the one of --db-url.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().String("db-url", "", "the database, as a role with REPLICATION")
	cmd.PersistentFlags().String("slot", "sluice", "name of the slot")
	cmd.AddCommand(&cobra.Command{
		Use: "status", Short: "Show what the server keeps for the slot", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			url, slot, err := slotOf(cmd)
			if err != nil {
				return err
			}
			s, err := wal.Status(cmd.Context(), url, slot)
			if err != nil {
				return noSlot(err, slot)
			}
			return printSlot(stdout, &s)
		},
	}, &cobra.Command{
		Use: "drop", Short: "Drop the slot, which nobody may be reading", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			url, slot, err := slotOf(cmd)
			if err != nil {
				return err
			}
			if err := wal.Drop(cmd.Context(), url, slot); err != nil {
				return noSlot(err, slot)
			}
			fmt.Fprintf(stderr, "Dropped slot %s. The next start of Sluice makes it again, and clients that come back then are told of a gap.\n", slot)
			return nil
		},
	})
	return cmd
}

func noSlot(err error, slot string) error {
	if errors.Is(err, sluice.ErrNotFound) {
		return fmt.Errorf("this database has no replication slot %s: nothing is kept", slot)
	}
	return err
}

// slotOf returns the database and the slot that a command is about.
func slotOf(cmd *cobra.Command) (url sluice.Secret, slot string, err error) {
	if slot = flag(cmd, "slot"); flag(cmd, "db-url") != "" {
		return sluice.Secret(flag(cmd, "db-url")), slot, nil
	}
	f, err := openFolder(flag(cmd, "workdir"))
	if err != nil {
		return "", "", err
	}
	s, err := f.running()
	if err != nil {
		return "", "", err
	}
	if s != nil {
		for _, v := range s.Vars {
			if v.Name == "DB_URL" {
				return sluice.Secret(v.Value), slot, nil
			}
		}
	}
	return "", "", errors.New("no stack is running in this folder; name the database with --db-url")
}

func printSlot(w io.Writer, s *wal.SlotStatus) error {
	reader, limit := "nobody", "none: a slot without its reader fills the disk (max_slot_wal_keep_size)"
	if s.Active != 0 {
		reader = fmt.Sprintf("process %d", s.Active)
	}
	if s.Limit >= 0 {
		limit = size(s.Limit)
	}
	for _, row := range [][2]string{
		{"Slot", s.Slot},
		{"Database", s.Database},
		{"Read by", reader},
		{"Confirmed", s.Flushed.String()},
		{"WAL kept", size(s.Kept) + " (" + s.WAL + ")"},
		{"Limit", limit},
	} {
		if _, err := fmt.Fprintf(w, "%-10s %s\n", row[0], row[1]); err != nil {
			return err
		}
	}
	return nil
}

// size renders bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KB", (n+1023)>>10)
}
