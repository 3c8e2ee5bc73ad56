package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-dev/sluice/devpg"
	"github.com/sluice-dev/sluice/project"
)

func newBackup(stderr io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "backup [FILE]",
		Short: "Keep the project's database in one file",
		Long: `Writes the database of the stopped stack in this folder to one file: all of it,
as it is on disk, for the same major version of PostgreSQL. Without FILE its name
is the project's with the time. The command restore brings it back, here or in
another folder or machine.

  sluice stop && sluice backup before-the-change.tar.gz

Keys and settings are not in it: they are in supabase/config.toml. For a copy that
another version of PostgreSQL can read, use pg_dump with: sluice db url`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := openFolder(flag(cmd, "workdir"))
			if err != nil {
				return err
			}
			return f.alone(func() error { return backup(cmd, f, args, stderr) })
		},
	}
}

func newRestore(stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Bring back a database that backup has kept",
		Long: `Makes the database of the stopped stack in this folder from a file of the command
backup. All or nothing: a file that is damaged changes nothing. Where there is a
database already it is refused; --force moves that one aside and says where to.

A backup is a server's data folder: it can hold code that PostgreSQL runs when it
starts. Restore only files of whom you would run a program.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := openFolder(flag(cmd, "workdir"))
			if err != nil {
				return err
			}
			force, _ := cmd.Flags().GetBool("force")
			return f.alone(func() error { return restore(cmd, f, args[0], force, stderr) })
		},
	}
	cmd.Flags().Bool("force", false, "move a database that is there aside")
	return cmd
}

// alone runs fn while nobody can start the stack of this folder.
func (f *folder) alone(fn func() error) error {
	if err := f.create(); err != nil {
		return err
	}
	l := f.lock()
	got, err := l.TryLock()
	if err != nil {
		return fmt.Errorf("look at the lock in %s: %w", f.dir, err)
	}
	if !got {
		return errors.New("the stack of this folder runs; stop it first with: sluice stop")
	}
	defer l.Unlock() //nolint:errcheck // the process ends
	return fn()
}

func backup(cmd *cobra.Command, f *folder, args []string, stderr io.Writer) error {
	if f.isNew() {
		return errors.New("there is no database in this folder yet; sluice start makes one")
	}
	p, _, err := project.Load(f.workdir, os.Environ())
	if err != nil {
		return err
	}
	now := time.Now()
	name := filepath.Base(f.workdir)
	if p.Config.ProjectID != "" {
		name = p.Config.ProjectID
	}
	file := fmt.Sprintf("%s-%s.tar.gz", name, now.Format("20060102-150405"))
	if len(args) == 1 {
		file = args[0]
	}
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s is there already; name another file", file)
	}
	partial, err := os.CreateTemp(filepath.Dir(file), ".sluice-backup-") // mode 0600
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	defer os.Remove(partial.Name()) // when it was not renamed
	defer partial.Close()           // once more than below
	m, err := devpg.Backup(cmd.Context(), f.data(), partial, devpg.Manifest{Created: now.UTC(), Project: name, Sluice: buildVersion()}, percents(stderr, "Keeping"))
	if err != nil {
		return err
	}
	if err := errors.Join(partial.Sync(), partial.Close()); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if err := os.Rename(partial.Name(), file); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	size := int64(0)
	if fi, err := os.Stat(file); err == nil {
		size = fi.Size()
	}
	fmt.Fprintf(stderr, "Kept the database of PostgreSQL %d (%d MB) in %s (%d MB).\n", m.Postgres, m.Bytes>>20, file, size>>20)
	return nil
}

func restore(cmd *cobra.Command, f *folder, file string, force bool, stderr io.Writer) error {
	r, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	defer r.Close()
	aside := ""
	if _, err := os.Lstat(f.data()); err == nil {
		if !force {
			return fmt.Errorf("there is a database in %s: --force moves it aside, `sluice stop --no-backup` deletes it", f.data())
		}
		aside = f.data() + "-before-" + time.Now().Format("20060102-150405")
		if err := os.Rename(f.data(), aside); err != nil {
			return fmt.Errorf("move the database aside: %w", err)
		}
	}
	m, err := devpg.Restore(cmd.Context(), f.data(), r, percents(stderr, "Restoring"))
	if err != nil {
		_ = devpg.Remove(f.data()) // the empty folder
		if aside != "" {
			err = errors.Join(err, os.Rename(aside, f.data()))
		}
		return fmt.Errorf("restore %s: %w", file, err)
	}
	// Positions of clients are of the other database.
	if err := os.Remove(f.positions()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the positions of clients: %w", err)
	}
	if err := os.WriteFile(f.readyMarker(), nil, 0o644); err != nil {
		return fmt.Errorf("mark the database as complete: %w", err)
	}
	if aside != "" {
		fmt.Fprintf(stderr, "The database that was here is in %s.\n", aside)
	}
	fmt.Fprintf(stderr, "Restored the database of %s, kept on %s (%d MB). Start it with: sluice start\n", m.Project, m.Created.Local().Format("2006-01-02 15:04"), m.Bytes>>20)
	return nil
}

// percents tells progress in steps of a quarter, of what takes more than a moment.
func percents(w io.Writer, what string) func(done, total int64) {
	began, last := time.Now(), int64(0)
	return func(done, total int64) {
		if total == 0 || time.Since(began) < time.Second {
			return
		}
		if quarter := done * 4 / total; quarter > last {
			last = quarter
			fmt.Fprintf(w, "%s the database: %d %%\n", what, quarter*25)
		}
	}
}
