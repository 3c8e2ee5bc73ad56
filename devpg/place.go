package devpg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// placeFile in a data folder names the folder where the cluster really is.
const placeFile = "LOCATION"

// sharedDir holds the clusters of projects that the server's user cannot enter.
const sharedDir = "/var/lib/sluice"

// ownerSuffix names the file beside a cluster in sharedDir that says whose it is.
const ownerSuffix = ".project"

// place returns the folder that the cluster lives in, and makes it.
func place(dataDir string, account *account) (string, error) {
	elsewhere, err := ownPlace(dataDir)
	if err != nil {
		return "", err
	}
	if elsewhere != "" {
		if err := writeOwner(elsewhere, dataDir); err != nil { // it may have moved
			return "", err
		}
		return elsewhere, makeDir(elsewhere, account)
	}
	parent := filepath.Dir(dataDir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("make data folder: %w", err)
	}
	if account == nil || account.canEnter(parent) {
		return dataDir, makeDir(dataDir, account)
	}
	if _, err := os.Stat(filepath.Join(dataDir, "PG_VERSION")); err == nil {
		return "", fmt.Errorf("user %s, that PostgreSQL runs as, can no longer enter the folders above the cluster in %s; allow it with chmod o+x", account.name, dataDir)
	}
	return placeElsewhere(dataDir, account)
}

// placeElsewhere makes a folder in sharedDir and records it on both sides.
func placeElsewhere(dataDir string, account *account) (string, error) {
	if err := makeShared(account); err != nil {
		return "", fmt.Errorf("make %s, because user %s cannot enter %s: %w", sharedDir, account.name, dataDir, err)
	}
	elsewhere, err := os.MkdirTemp(sharedDir, "cluster-") // mode 0700
	if err != nil {
		return "", fmt.Errorf("make data folder: %w", err)
	}
	if err := give(elsewhere, account); err != nil {
		return "", err
	}
	if err := writeOwner(elsewhere, dataDir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return "", fmt.Errorf("make data folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dataDir, placeFile), []byte(elsewhere+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("record the place of the cluster: %w", err)
	}
	return elsewhere, nil
}

// makeShared makes sharedDir so that the server's user can enter it, whatever
// this process's umask.
func makeShared(account *account) error {
	if err := os.MkdirAll(sharedDir, 0o755); err != nil {
		return err
	}
	if account.canEnter(sharedDir) {
		return nil
	}
	if err := os.Chmod(sharedDir, 0o755); err != nil {
		return err
	}
	if !account.canEnter(sharedDir) {
		return fmt.Errorf("user %s cannot enter that either", account.name)
	}
	return nil
}

// ownPlace returns the folder that placeFile names, "" when there is none or
// when it is another project's: a copy of a project's folder brings the file
// along, and must neither use nor delete the original's cluster.
func ownPlace(dataDir string) (string, error) {
	elsewhere, err := readPlace(dataDir)
	if err != nil || elsewhere == "" {
		return "", err
	}
	owner, err := readOwner(elsewhere)
	if err != nil || owner == "" || owner == dataDir {
		return elsewhere, err
	}
	// The same folder by another path, or one that has moved?
	if there, err := readPlace(owner); err != nil || there != elsewhere || sameFile(owner, dataDir) {
		return elsewhere, nil
	}
	return "", nil
}

func sameFile(a, b string) bool {
	fa, err1 := os.Stat(a)
	fb, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(fa, fb)
}

// readOwner returns the data folder that a cluster in sharedDir belongs to, ""
// when that is not recorded.
func readOwner(elsewhere string) (string, error) {
	text, err := os.ReadFile(elsewhere + ownerSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the owner of the cluster: %w", err)
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}

func writeOwner(elsewhere, dataDir string) error {
	if owner, err := readOwner(elsewhere); err == nil && owner == dataDir {
		return nil
	}
	if err := os.WriteFile(elsewhere+ownerSuffix, []byte(dataDir+"\n"), 0o644); err != nil {
		return fmt.Errorf("record the owner of the cluster: %w", err)
	}
	return nil
}

func readPlace(dataDir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dataDir, placeFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the place of the cluster: %w", err)
	}
	dir := strings.TrimSpace(string(text))
	// It is deleted by `stop --no-backup`: nothing but our own names.
	if filepath.Dir(dir) != sharedDir {
		return "", fmt.Errorf("%s names %q, which is not a folder of Sluice", filepath.Join(dataDir, placeFile), dir)
	}
	return dir, nil
}

// makeDir makes a folder that belongs to the server's user.
func makeDir(dir string, account *account) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	return give(dir, account)
}

// give hands a file to the server's user.
func give(path string, account *account) error {
	if account == nil {
		return nil
	}
	if err := os.Lchown(path, account.uid, account.gid); err != nil {
		return fmt.Errorf("give %s to user %s: %w", path, account.name, err)
	}
	return nil
}
