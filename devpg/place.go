package devpg

import (
	"crypto/sha256"
	"encoding/hex"
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

// place returns the folder that the cluster lives in, and makes it.
func place(dataDir string, account *account) (string, error) {
	elsewhere, err := readPlace(dataDir)
	if err != nil {
		return "", err
	}
	if elsewhere != "" {
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
	sum := sha256.Sum256([]byte(dataDir))
	elsewhere = filepath.Join(sharedDir, hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(sharedDir, 0o755); err != nil {
		return "", fmt.Errorf("make %s, because user %s cannot enter %s: %w", sharedDir, account.name, dataDir, err)
	}
	if err := makeDir(elsewhere, account); err != nil {
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
