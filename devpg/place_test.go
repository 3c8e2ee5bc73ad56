//go:build unix

package devpg_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice/devpg"
)

// location reads where a cluster really is.
func location(t testing.TB, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "LOCATION"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root runs servers as another user")
	}
}

// TestElsewhere: the server's user cannot enter the project, so the cluster
// lives in a shared folder, and is deleted with the project's.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "pg") // below a folder of mode 0700
	t.Cleanup(func() { _ = devpg.Remove(dir) })
	s := server(t, config(t, dir))
	if !start(t, s) {
		t.Error("not fresh")
	}
	elsewhere := location(t, dir)
	if filepath.Dir(elsewhere) != devpg.SharedDir {
		t.Errorf("the cluster is in %s", elsewhere)
	}
	execute(t, s, "create table kept as select 1 as id")
	stop(t, s)
	again := server(t, config(t, dir))
	if start(t, again) {
		t.Error("the second start made another cluster")
	}
	value(t, again, "select count(*)::text from kept")
	stop(t, again)
	if err := devpg.Remove(dir); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{dir, elsewhere} {
		if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s after Remove: %v", gone, err)
		}
	}
}

// TestElsewhereUmask: root's umask does not keep the server out of the folders
// made for it.
func TestElsewhereUmask(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "deep", "pg")
	t.Cleanup(func() { _ = devpg.Remove(dir) })
	c := startChild(t, childSpec{DataDir: dir, Port: port(t), Umask: 0o077})
	if said := <-c.lines; said != "ready\n" {
		t.Fatalf("child: %s", said)
	}
}

// TestForeignLocation: the file is data of a folder that others may have
// written, and what it names is deleted by Remove.
func TestForeignLocation(t *testing.T) {
	t.Parallel()
	victim := room(t)
	for _, named := range []string{victim, devpg.SharedDir + "/../" + victim, devpg.SharedDir, ""} {
		dir := filepath.Join(room(t), "pg")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "LOCATION"), []byte(named+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := server(t, config(t, dir)).Start(t.Context())
		wantError(t, err, "LOCATION", "not a folder of Sluice")
		if err := devpg.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(victim); err != nil {
			t.Fatalf("LOCATION %q: %v", named, err)
		}
	}
}

// TestCopiedProject: a copy of a project's folder brings the file along that
// names the original's cluster. It must not take that cluster, nor end its
// server. A moved one keeps it.
func TestCopiedProject(t *testing.T) {
	t.Parallel()
	needRoot(t)
	base := t.TempDir()
	dir := filepath.Join(base, "one", "pg")
	t.Cleanup(func() { _ = devpg.Remove(dir) })
	s := server(t, config(t, dir))
	start(t, s)
	execute(t, s, "create table kept as select 1 as id")

	twin := filepath.Join(base, "two", "pg")
	if out, err := exec.Command("cp", "-Rp", filepath.Dir(dir), filepath.Dir(twin)).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = devpg.Remove(twin) })
	other := server(t, config(t, twin))
	if !start(t, other) {
		t.Error("the copy took the original's cluster")
	}
	value(t, s, "select count(*)::text from kept")
	if location(t, dir) == location(t, twin) {
		t.Error("two projects share one cluster")
	}
	stop(t, s)
	stop(t, other)

	moved := filepath.Join(base, "three", "pg")
	if err := os.Rename(filepath.Dir(dir), filepath.Dir(moved)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = devpg.Remove(moved) })
	s = server(t, config(t, moved))
	if start(t, s) {
		t.Error("the moved project lost its cluster")
	}
	value(t, s, "select count(*)::text from kept")
	stop(t, s)
	if start(t, s) {
		t.Error("the moved project lost its cluster at the next start")
	}
}

// TestForeignOwner names the owner and the remedy.
func TestForeignOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		// A folder of root's will do.
		_, err := server(t, config(t, "/usr")).Start(t.Context())
		wantError(t, err, "data folder /usr belongs to user root", "chown -R")
		return
	}
	dir := bare(t)
	if err := os.Chown(dir, 54321, 54321); err != nil {
		t.Fatal(err)
	}
	_, err := server(t, config(t, dir)).Start(t.Context())
	wantError(t, err, "data folder "+dir+" belongs to user 54321", "chown -R")
}

// TestClosedParent: the cluster is in the project, and the folders above it no
// longer let the server's user through. It is not made anew elsewhere.
func TestClosedParent(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := bare(t)
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := server(t, config(t, dir)).Start(t.Context())
	wantError(t, err, "can no longer enter", dir, "chmod o+x")
}

// TestBinariesOutOfReach: the server's user must be able to run the binaries.
func TestBinariesOutOfReach(t *testing.T) {
	t.Parallel()
	needRoot(t)
	cfg := config(t, bare(t))
	cfg.Binaries.Dir = t.TempDir()
	_, err := server(t, cfg).Start(t.Context())
	wantError(t, err, "cannot enter the folder of its binaries", cfg.Binaries.Dir)
}
