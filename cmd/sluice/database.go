package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/devpg"
	"github.com/sluice-dev/sluice/internal/backoff"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/project"
	"github.com/sluice-dev/sluice/token"
)

// database is the stack's own PostgreSQL with the project's schema. One method
// runs at a time.
type database struct {
	folder  *folder
	project *project.Project
	server  *devpg.Server
	log     *slog.Logger
	say     *progress
}

// start brings PostgreSQL up.
func (d *database) start(ctx context.Context) error {
	if !d.project.HasFolder && d.folder.isNew() {
		d.say.say("There is no supabase/ folder here: the defaults of the Supabase CLI apply. Data goes to .sluice/.")
	}
	d.say.say("Starting database...")
	fresh, err := d.server.Start(ctx)
	if fresh {
		// Whatever was applied before was applied to another cluster.
		err = errors.Join(err, d.folder.removeReadyMarker())
	}
	return err
}

func (d *database) stop() {
	d.say.say("Stopping database...")
	if err := within(stopDeadline/2, d.server.Stop); err != nil {
		d.say.say("WARN: %v", err)
	}
}

// keep starts PostgreSQL again whenever it ends by itself, until ctx ends.
// Meanwhile the services answer that the database is away, and keep their
// sockets.
func (d *database) keep(ctx context.Context) error {
	retry := backoff.Backoff{Max: 15 * time.Second}
	for running := time.Now(); ; running = time.Now() {
		select {
		case <-ctx.Done():
			return nil
		case <-d.server.Done():
		}
		d.log.Error("PostgreSQL ended by itself; starting it again", "log", ".sluice/postgres.log")
		d.say.say("PostgreSQL ended by itself (its log is .sluice/postgres.log). Starting it again...")
		if time.Since(running) > time.Minute {
			retry.Reset()
		}
		if retry.Wait(ctx) != nil {
			return nil
		}
		_, err := d.server.Start(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			d.log.Error("PostgreSQL does not start", sluice.LogError, err)
			d.say.say("WARN: PostgreSQL does not start: %v", err)
		default:
			d.log.Info("PostgreSQL is back")
			d.say.say("PostgreSQL is back.")
		}
	}
}

// prepare brings the cluster to the state that the services and the project's
// migrations expect. User migrations run on a fresh database alone, as in the
// Supabase CLI; a first start that failed half way is taken up again.
func (d *database) prepare(ctx context.Context) error {
	fresh := d.folder.isNew()
	if fresh {
		d.say.say("Initialising schema...")
	}
	admin := sluice.Secret(d.server.URL("supabase_admin", "postgres"))
	secret := d.project.Config.Auth.JWTSecret
	if secret == "" {
		secret = token.DevJWTSecret
	}
	err := pg.Bootstrap(ctx, admin, pg.BootstrapOptions{
		JWTSecret: sluice.Secret(secret), JWTExp: d.project.Config.Auth.JWTExpiry,
		AutoExposeNewTables: d.project.Config.API.AutoExposeNewTables, Logger: d.log,
	})
	if err != nil {
		return err
	}
	if err := pg.Migrate(ctx, admin, d.log); err != nil {
		return err
	}
	if !fresh {
		return nil
	}
	user := sluice.Secret(d.server.URL("postgres", "postgres"))
	if err := d.project.Apply(ctx, user, func(line string) { d.say.say("%s", line) }); err != nil {
		return err
	}
	return os.WriteFile(d.folder.readyMarker(), nil, 0o644)
}

// recreate makes the cluster anew for a reset; prepare comes next. The whole
// cluster goes, as in the Supabase CLI: roles and settings that migrations made
// are not part of a database and would meet their own statements. Nothing may
// use it meanwhile.
func (d *database) recreate(ctx context.Context, req *resetRequest) error {
	d.project.HasFolder = req.project.HasFolder
	d.project.Config.DB.Migrations, d.project.Config.DB.Seed = req.project.Config.DB.Migrations, req.project.Config.DB.Seed
	if req.noSeed {
		d.project.Config.DB.Seed.Enabled = false
	}
	d.say.say("Resetting local database...")
	if err := within(stopDeadline/2, d.server.Stop); err != nil {
		d.log.Warn("stop PostgreSQL for a reset", sluice.LogError, err) // it has ended all the same
	}
	if err := d.folder.removeDatabase(); err != nil {
		return err
	}
	return d.start(ctx)
}

// reload reads the project's folder again, for a reset. Of the result only what
// concerns migrations and seeds takes effect in a running stack.
func (d *database) reload() (*project.Project, error) {
	p, _, err := project.Load(d.folder.workdir, os.Environ())
	if err != nil {
		return nil, fmt.Errorf("nothing was changed: %w", err)
	}
	return p, nil
}

// isNew tells that the project's scripts have not all been applied yet.
func (f *folder) isNew() bool {
	_, err := os.Stat(f.readyMarker())
	return errors.Is(err, fs.ErrNotExist)
}

func (f *folder) removeReadyMarker() error {
	if err := os.Remove(f.readyMarker()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the state of the database: %w", err)
	}
	return nil
}

// removeDatabase deletes the cluster, which does not run.
func (f *folder) removeDatabase() error {
	// The marker first: without it the next start makes everything anew.
	if err := f.removeReadyMarker(); err != nil {
		return err
	}
	return devpg.Remove(f.data())
}
