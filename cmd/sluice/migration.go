package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/project"
)

func newMigration(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "migration",
		Aliases: []string{"migrations"},
		Short:   "Make, apply and list the project's migrations",
		Long: `Works with supabase/migrations, whose files are named YYYYMMDDHHMMSS_name.sql and
run in the order of their names, once each. What has run is recorded in the
database, in supabase_migrations.schema_migrations, as the Supabase CLI does.

  sluice migration new add_rooms     make an empty file and edit it
  sluice migration up                apply it to the running stack, keeping the data
  sluice migration list              what is in the folder, and what is applied
  sluice db reset                    or make the database anew from all of them`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMigrationNew(stdout), newMigrationUp(stdout, stderr), newMigrationList(stdout, stderr))
	return cmd
}

func newMigrationNew(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "new NAME",
		Short: "Make a file for a new migration",
		Long: `Makes supabase/migrations/YYYYMMDDHHMMSS_NAME.sql, named by the time in UTC. The
file is empty, or holds what comes on standard input. No stack needs to run.

  sluice migration new add_rooms
  pg_dump "$URL" --schema-only | sluice migration new import`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("a migration needs one name, as in: sluice migration new add_rooms")
			}
			f, err := openFolder(flag(cmd, "workdir"))
			if err != nil {
				return err
			}
			path, err := project.NewMigration(f.workdir, args[0], time.Now(), piped(cmd.InOrStdin()))
			if err != nil {
				return err
			}
			fmt.Fprintf(stdout, "Created new migration at %s.\n", path)
			return nil
		},
	}
}

// piped is in, unless that is a person's terminal.
func piped(in io.Reader) io.Reader {
	if isCharDevice(in) {
		return strings.NewReader("")
	}
	return in
}

// isCharDevice tells a terminal, or the null device, from files and pipes.
func isCharDevice(stream any) bool {
	f, isFile := stream.(*os.File)
	if !isFile {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}

func newMigrationUp(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Apply pending migrations to the running stack",
		Long: `Applies the files of supabase/migrations that the running stack's database has not
recorded, in the order of their names, and keeps its data. Roles and seed are not
run; services and connected clients go on and see the new schema.

Each file is applied whole or not at all, and the first that fails ends the
command: mend it and run the command again. When the database has applied a file
that the folder lacks, or a pending one stands before an applied one, nothing is
applied; --include-all allows the second.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, _ := cmd.Flags().GetBool("include-all")
			p, url, err := projectAndDatabase(cmd)
			if err != nil {
				return err
			}
			if err := p.MigrateUp(cmd.Context(), url, all, func(line string) { fmt.Fprintln(stderr, line) }); err != nil {
				return err
			}
			fmt.Fprintln(stdout, "Local database is up to date.")
			return nil
		},
	}
	cmd.Flags().Bool("include-all", false, "also apply files that stand before an applied one")
	localFlag(cmd)
	return cmd
}

func newMigrationList(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the project's migrations, and those that are applied",
		Long: `Lists versions in three columns, as the Supabase CLI does: Local is the folder
supabase/migrations, Remote what the running stack's database has applied, and
Time the version as a date. A version that stands in one column alone is pending,
or its file is gone.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, url, err := projectAndDatabase(cmd)
			if err != nil {
				return err
			}
			fmt.Fprintln(stderr, "Connecting to local database...")
			list, err := p.History(cmd.Context(), url)
			if err != nil {
				return err
			}
			printHistory(stdout, list)
			for _, m := range list {
				if m.Changed {
					fmt.Fprintln(stderr, "WARNING: "+project.ChangedText(m.Version))
				}
			}
			return nil
		},
	}
	localFlag(cmd)
	return cmd
}

// localFlag takes the CLI's --local, which scripts give and is the only way here.
func localFlag(cmd *cobra.Command) {
	cmd.Flags().Bool("local", true, "use the running stack's database, as is always done")
}

// projectAndDatabase is the folder as it is now and the database that serves it.
func projectAndDatabase(cmd *cobra.Command) (*project.Project, sluice.Secret, error) {
	url, err := databaseURL(cmd)
	if err != nil {
		return nil, "", err
	}
	p, _, err := project.Load(flag(cmd, "workdir"), os.Environ())
	return p, sluice.Secret(url), err
}

func printHistory(w io.Writer, list []project.MigrationState) {
	rows := [][3]string{{"Local", "Remote", "Time (UTC)"}}
	for _, m := range list {
		row := [3]string{"", "", m.Version}
		if m.Local {
			row[0] = m.Version
		}
		if m.Applied {
			row[1] = m.Version
		}
		if t, err := time.Parse("20060102150405", m.Version); err == nil {
			row[2] = t.Format(time.DateTime)
		}
		rows = append(rows, row)
	}
	var width [3]int
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	for i, row := range rows {
		fmt.Fprintf(w, "   %-*s | %-*s | %s\n", width[0], row[0], width[1], row[1], row[2])
		if i == 0 {
			fmt.Fprintf(w, "  %s|%s|%s\n", strings.Repeat("-", width[0]+2), strings.Repeat("-", width[1]+2), strings.Repeat("-", width[2]+2))
		}
	}
}
