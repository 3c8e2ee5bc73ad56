//go:build unix

package devpg

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"io"
	"testing"
)

// For tests.
var (
	FindVersion = find
	RunsOn      = runsOn
)

// SharedDir is where clusters live that the server's user cannot enter.
const SharedDir = sharedDir

// HideInstalled lets Find see PATH alone until t ends. t must not be parallel.
func HideInstalled(t testing.TB) {
	old := installed
	installed = nil
	t.Cleanup(func() { installed = old })
}

// ServerIDs returns the user and group that servers run as when this process is
// root.
func ServerIDs() (uid, gid int, err error) {
	a, err := serverAccount()
	if err != nil || a == nil {
		return 0, 0, err
	}
	return a.uid, a.gid, nil
}

// Unpack is Restore's reading of an archive, into a folder that is there.
func Unpack(ctx context.Context, r io.Reader, dir string) error {
	zr, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	tr := tar.NewReader(zr)
	m, err := readManifest(tr)
	if err != nil {
		return err
	}
	if m.Bytes > 1<<20 {
		return nil // a test's disk is small
	}
	return unpackBackup(ctx, tr, dir, m, nil, nil)
}
