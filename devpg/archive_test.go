//go:build unix

package devpg_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice/devpg"
)

// entry is a file of an archive that a test makes; a Linkname makes it a link.
type entry struct {
	name, text, link string
	dir              bool
}

func backupFile(t testing.TB, m devpg.Manifest, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range append([]entry{{name: "manifest.json", text: string(text)}}, entries...) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.text)), Mode: 0o777}
		switch {
		case e.dir:
			h.Typeflag = tar.TypeDir
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func whole(version string) []entry {
	return []entry{{name: "pg/PG_VERSION", text: version + "\n"}, {name: "pg/global/", dir: true}, {name: "pg/global/pg_control", text: "control"}}
}

func manifest(files int, size int64) devpg.Manifest {
	return devpg.Manifest{Format: 1, Postgres: 15, Files: files, Bytes: size, Project: "p", Sluice: "dev"}
}

// Whatever is in a file, nothing is written outside of the data folder, and what is
// not whole leaves nothing behind.
func TestHostileBackup(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file []byte
		want string
	}{
		"leads out":     {backupFile(t, manifest(3, 100), append(whole("15"), entry{name: "pg/../../out", text: "x"})...), `it holds "pg/../../out"`},
		"absolute":      {backupFile(t, manifest(3, 100), append(whole("15"), entry{name: "/etc/out", text: "x"})...), `it holds "/etc/out"`},
		"a link":        {backupFile(t, manifest(3, 100), append(whole("15"), entry{name: "pg/pg_wal", link: "/etc"})...), "neither a file nor a folder"},
		"elsewhere":     {backupFile(t, manifest(3, 100), append(whole("15"), entry{name: "other/x", text: "x"})...), `it holds "other/x"`},
		"too many":      {backupFile(t, manifest(1, 100), whole("15")...), "more than its manifest says"},
		"too large":     {backupFile(t, manifest(2, 5), whole("15")...), "more than its manifest says"},
		"too little":    {backupFile(t, manifest(9, 10), whole("15")...), "it ends early"},
		"another one":   {backupFile(t, manifest(2, 10), whole("14")...), "no cluster of PostgreSQL 15"},
		"no cluster":    {backupFile(t, manifest(1, 3), entry{name: "pg/PG_VERSION", text: "15\n"}), "no cluster of PostgreSQL 15"},
		"newer":         {backupFile(t, devpg.Manifest{Format: 2, Postgres: 15, Sluice: "9.9"}), "made by a newer Sluice (9.9)"},
		"negative":      {backupFile(t, devpg.Manifest{Format: 1, Postgres: 15, Bytes: -1}), "makes no sense"},
		"no manifest":   {gz(t, "hello"), "does not begin with manifest.json"},
		"not gzip":      {[]byte("hello"), "not a usable backup"},
		"empty":         {nil, "not a usable backup"},
		"twice":         {backupFile(t, manifest(3, 13), append(whole("15"), entry{name: "pg/PG_VERSION", text: "15\n"})...), "PG_VERSION"},
		"cut off":       {backupFile(t, manifest(2, 10), whole("15")...)[:150], "not a usable backup"},
		"not installed": {backupFile(t, devpg.Manifest{Format: 1, Postgres: 99, Files: 2, Bytes: 10}, whole("99")...), "install version 99"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			data := filepath.Join(base, "project", "pg")
			_, err := devpg.Restore(t.Context(), data, bytes.NewReader(tt.file), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			_ = filepath.WalkDir(base, func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() && d.Name() != "LOCATION" {
					t.Errorf("left behind: %s", path)
				}
				return nil
			})
			_ = devpg.Remove(data)
		})
	}
}

func gz(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	if _, err := zw.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A cluster with something in it that lies elsewhere cannot be kept in one file, and
// one that was not shut down is not kept.
func TestBackupRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "pg_wal")); err != nil {
		t.Skip(err)
	}
	_, err := devpg.Backup(t.Context(), dir, &bytes.Buffer{}, devpg.Manifest{}, nil)
	wantError(t, err, "tablespaces or links", "pg_dump")
	if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = devpg.Backup(t.Context(), dir, &bytes.Buffer{}, devpg.Manifest{}, nil)
	wantError(t, err, "was not shut down")
}

// FuzzRestore: whatever the bytes are, nothing is written outside of the folder.
func FuzzRestore(f *testing.F) {
	f.Add(backupFile(f, manifest(2, 10), whole("15")...))
	f.Add(backupFile(f, manifest(3, 100), entry{name: "pg/../x", text: "x"}))
	f.Add([]byte("hello"))
	f.Fuzz(func(t *testing.T, data []byte) {
		base := t.TempDir()
		inside := filepath.Join(base, "inside")
		if err := os.Mkdir(inside, 0o700); err != nil {
			t.Fatal(err)
		}
		_ = devpg.Unpack(t.Context(), bytes.NewReader(data), inside) // any error will do
		entries, err := os.ReadDir(base)
		if err != nil || len(entries) != 1 {
			t.Errorf("outside of the folder: %v, %v", entries, err)
		}
	})
}

// A size that no number holds together with what came before is more than the
// manifest says.
func TestBackupOfHugeSize(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	text, err := json.Marshal(manifest(2, 100))
	if err != nil {
		t.Fatal(err)
	}
	_ = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Size: int64(len(text))})
	_, _ = tw.Write(text)
	_ = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "pg/a", Size: 1})
	_, _ = tw.Write([]byte("1"))
	_ = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "pg/b", Size: math.MaxInt64, Format: tar.FormatGNU})
	_, _ = tw.Write(make([]byte, 1<<20))
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	most := int64(0)
	_, err = devpg.Restore(t.Context(), filepath.Join(t.TempDir(), "pg"), &b, func(done, _ int64) { most = max(most, done) })
	if !errors.Is(err, devpg.ErrBackup) || most > 100 {
		t.Errorf("%d bytes were written: %v", most, err)
	}
}
