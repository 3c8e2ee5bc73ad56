package devpg

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Manifest is the first file of a backup.
type Manifest struct {
	Format   int       `json:"format"`   // of the archive; 1
	Postgres int       `json:"postgres"` // major version of the cluster
	Bytes    int64     `json:"bytes"`    // of all files, unpacked
	Files    int       `json:"files"`
	Created  time.Time `json:"created"`
	Project  string    `json:"project"`
	Sluice   string    `json:"sluice"` // version that made it
}

const (
	archiveFormat = 1
	manifestName  = "manifest.json"
	clusterPrefix = "pg/"
	maxManifest   = 64 << 10
	maxFiles      = 2_000_000
)

// ErrBackup says that a file is no backup, or a damaged one.
var ErrBackup = errors.New("not a usable backup")

// notKept are files of a cluster that mean something only while it runs.
var notKept = map[string]bool{"postmaster.pid": true, "postmaster.opts": true}

// Backup writes a cluster that does not run to w: a gzip'ed tar file with the
// manifest, of which m says the project and the versions, before the files.
// progress, which may be nil, is told bytes that are done and all of them. A cluster
// with tablespaces or links in it is refused: they lie elsewhere.
func Backup(ctx context.Context, dataDir string, w io.Writer, m Manifest, progress func(done, total int64)) (Manifest, error) {
	dir, err := Place(dataDir)
	if err != nil {
		return m, err
	}
	if _, err := os.Stat(filepath.Join(dir, "postmaster.pid")); err == nil {
		return m, fmt.Errorf("PostgreSQL was not shut down in %s: start and stop the stack once, then make the backup", dir)
	}
	s := &Server{dir: dir}
	if m.Postgres, err = s.clusterVersion(); err != nil {
		return m, err
	}
	if m.Postgres == 0 {
		return m, fmt.Errorf("there is no database in %s yet: %w", dataDir, fs.ErrNotExist)
	}
	m.Format, m.Bytes, m.Files = archiveFormat, 0, 0
	err = walkCluster(dir, func(_ string, fi fs.FileInfo) error {
		if fi.Mode().IsRegular() {
			m.Bytes += fi.Size()
			m.Files++
		}
		return ctx.Err()
	})
	if err != nil {
		return m, err
	}
	zw, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is a valid one
	tw := tar.NewWriter(zw)
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, fmt.Errorf("write the manifest: %w", err)
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: manifestName, Mode: 0o600, Size: int64(len(text)), ModTime: m.Created}); err != nil {
		return m, fmt.Errorf("write the backup: %w", err)
	}
	if _, err := tw.Write(text); err != nil {
		return m, fmt.Errorf("write the backup: %w", err)
	}
	count := &counter{ctx: ctx, total: m.Bytes, tell: progress}
	if err := walkCluster(dir, func(name string, fi fs.FileInfo) error { return pack(tw, dir, name, fi, count) }); err != nil {
		return m, err
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		return m, fmt.Errorf("write the backup: %w", err)
	}
	return m, nil
}

// walkCluster calls fn with each folder and file, by its path with slashes.
func walkCluster(dir string, fn func(name string, fi fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read the cluster: %w", err)
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || rel == "." || notKept[rel] {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return fmt.Errorf("read the cluster: %w", err)
		}
		if !fi.IsDir() && !fi.Mode().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a folder: a cluster with tablespaces or links cannot be kept in one file; use pg_dump", p)
		}
		return fn(filepath.ToSlash(rel), fi)
	})
}

func pack(tw *tar.Writer, dir, name string, fi fs.FileInfo, count *counter) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: clusterPrefix + name, Mode: 0o600, Size: fi.Size(), ModTime: fi.ModTime()}
	if fi.IsDir() {
		h.Typeflag, h.Name, h.Mode, h.Size = tar.TypeDir, h.Name+"/", 0o700, 0
	}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if fi.IsDir() {
		return nil
	}
	file, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return fmt.Errorf("read the cluster: %w", err)
	}
	defer file.Close()
	if _, err := io.Copy(tw, count.reader(io.LimitReader(file, fi.Size()))); err != nil {
		return fmt.Errorf("write %s to the backup: %w", name, err)
	}
	return nil
}

// Restore unpacks a backup to a data folder in which no cluster is. All or nothing:
// with an error the folder is as it was. The error is of kind ErrBackup when r is at
// fault.
func Restore(ctx context.Context, dataDir string, r io.Reader, progress func(done, total int64)) (Manifest, error) {
	var m Manifest
	zr, err := gzip.NewReader(r)
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	tr := tar.NewReader(zr)
	if m, err = readManifest(tr); err != nil {
		return m, err
	}
	b, err := find(ctx, m.Postgres)
	if err == nil && b.Version != m.Postgres {
		return m, fmt.Errorf("the backup is of PostgreSQL %d, and the binaries in %s are version %s: install version %d, or name its folder in SLUICE_PG_BIN", m.Postgres, b.Dir, b.Full, m.Postgres)
	}
	account, err := serverAccount()
	if err != nil {
		return m, err
	}
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return m, fmt.Errorf("resolve data folder: %w", err)
	}
	dir, err := place(abs, account)
	if err != nil {
		return m, err
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return m, fmt.Errorf("the data folder %s is not empty: %w", dir, errors.Join(fs.ErrExist, err))
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+scratchInfix)
	if err != nil {
		return m, fmt.Errorf("make a folder for the backup: %w", err)
	}
	defer os.RemoveAll(scratch) // what is left of it
	if err := give(scratch, account); err != nil {
		return m, err
	}
	if err := unpackBackup(ctx, tr, scratch, m, account, progress); err != nil {
		return m, err
	}
	if err := os.Remove(dir); err != nil {
		return m, fmt.Errorf("put the cluster in its place: %w", err)
	}
	if err := os.Rename(scratch, dir); err != nil {
		return m, fmt.Errorf("put the cluster in its place: %w", err)
	}
	return m, nil
}

func readManifest(tr *tar.Reader) (m Manifest, err error) {
	h, err := tr.Next()
	if err != nil || h.Name != manifestName || h.Size > maxManifest {
		return m, fmt.Errorf("%w: it does not begin with %s", ErrBackup, manifestName)
	}
	text, err := io.ReadAll(tr)
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrBackup, manifestName, err)
	}
	switch {
	case m.Format > archiveFormat:
		return m, fmt.Errorf("%w: it was made by a newer Sluice (%s)", ErrBackup, m.Sluice)
	case m.Format < 1 || m.Bytes < 0 || m.Files < 0 || m.Files > maxFiles:
		return m, fmt.Errorf("%w: its %s makes no sense", ErrBackup, manifestName)
	}
	return m, nil
}

// unpackBackup writes what the manifest announces into dir, and nothing else: no links, no
// path that leads out, no byte more.
func unpackBackup(ctx context.Context, tr *tar.Reader, dir string, m Manifest, account *account, progress func(done, total int64)) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer root.Close()
	count := &counter{ctx: ctx, total: m.Bytes, tell: progress}
	files, entries := 0, 0
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrBackup, err)
		}
		name, inside := strings.CutPrefix(h.Name, clusterPrefix)
		name = strings.TrimSuffix(name, "/")
		if entries++; entries > 2*maxFiles || !inside || name == "" || path.Clean(name) != name || !filepath.IsLocal(filepath.FromSlash(name)) {
			return fmt.Errorf("%w: it holds %q", ErrBackup, h.Name)
		}
		name = filepath.FromSlash(name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.Mkdir(name, 0o700)
		case tar.TypeReg:
			if files++; files > m.Files || h.Size > m.Bytes-count.done {
				return fmt.Errorf("%w: it holds more than its manifest says", ErrBackup)
			}
			err = unpackFile(root, name, count.reader(tr))
		default:
			return fmt.Errorf("%w: %q is neither a file nor a folder", ErrBackup, h.Name)
		}
		if err != nil {
			return err
		}
		if err := give(filepath.Join(dir, name), account); err != nil {
			return err
		}
	}
	if files != m.Files || count.done != m.Bytes {
		return fmt.Errorf("%w: it ends early: %d of %d files", ErrBackup, files, m.Files)
	}
	version, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if _, control := os.Stat(filepath.Join(dir, "global", "pg_control")); err != nil || control != nil || strings.TrimSpace(string(version)) != strconv.Itoa(m.Postgres) {
		return fmt.Errorf("%w: it holds no cluster of PostgreSQL %d", ErrBackup, m.Postgres)
	}
	return nil
}

func unpackFile(root *os.Root, name string, r io.Reader) error {
	file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if _, err := io.Copy(file, r); err != nil {
		file.Close()
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) {
			return fmt.Errorf("%w: %w", ErrBackup, err)
		}
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return errors.Join(file.Sync(), file.Close())
}

// Place returns the folder that the cluster of dataDir lives in, which is another one
// where the server's user cannot enter dataDir.
func Place(dataDir string) (string, error) {
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return "", fmt.Errorf("resolve data folder: %w", err)
	}
	elsewhere, err := ownPlace(abs)
	if elsewhere != "" {
		return elsewhere, err
	}
	return abs, err
}

// counter counts what passes, tells it, and ends with ctx.
type counter struct {
	ctx         context.Context
	done, total int64
	tell        func(done, total int64)
}

func (c *counter) reader(r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := c.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.Read(p)
		c.done += int64(n)
		if c.tell != nil {
			c.tell(c.done, c.total)
		}
		return n, err
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
