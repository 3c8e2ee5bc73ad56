package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// folder is a project's .sluice directory: the database cluster, logs, and the
// facts about a running stack. It is git-ignored by a file of its own.
type folder struct {
	workdir string
	dir     string
}

// state is what a running stack writes for status and stop.
type state struct {
	PID     int       `json:"pid"`
	Ready   bool      `json:"ready"` // the services answer; before that PID alone is set
	Started time.Time `json:"started"`
	Version string    `json:"version"`
	Vars    []envVar  `json:"vars"`
	Chat    string    `json:"chat,omitempty"` // address of the example's page
	// Control is where the process takes requests of other commands.
	Control controlAddress `json:"control"`
}

// openFolder finds the .sluice of workdir, which need not be there: nothing but
// a start makes it.
func openFolder(workdir string) (*folder, error) {
	abs, err := filepath.Abs(workdir)
	if err != nil {
		return nil, fmt.Errorf("resolve --workdir %q: %w", workdir, err)
	}
	if fi, err := os.Stat(abs); err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("--workdir %q is not a folder", workdir)
	}
	return &folder{workdir: abs, dir: filepath.Join(abs, ".sluice")}, nil
}

// create makes .sluice if it is missing.
func (f *folder) create() error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	ignore := filepath.Join(f.dir, ".gitignore")
	if _, err := os.Stat(ignore); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(ignore, []byte("*\n"), 0o644); err != nil {
			return fmt.Errorf("make the data folder: %w", err)
		}
	}
	return nil
}

// exists tells whether anything was ever started here.
func (f *folder) exists() bool {
	fi, err := os.Stat(f.dir)
	return err == nil && fi.IsDir()
}

func (f *folder) data() string        { return filepath.Join(f.dir, "pg") }
func (f *folder) logFile() string     { return filepath.Join(f.dir, "sluice.log") }
func (f *folder) positions() string   { return filepath.Join(f.dir, "positions") }
func (f *folder) postgresLog() string { return filepath.Join(f.dir, "postgres.log") }
func (f *folder) statePath() string   { return filepath.Join(f.dir, "state.json") }
func (f *folder) readyMarker() string { return filepath.Join(f.dir, "initialized") }

// lock is held by the process that runs the stack, for as long as it runs. The
// kernel releases it when the process dies, so a crash leaves nothing behind.
func (f *folder) lock() *flock.Flock { return flock.New(filepath.Join(f.dir, "lock")) }

// running returns the state of a running stack, or nil. While it starts or stops,
// the error is errStarting.
func (f *folder) running() (*state, error) {
	if !f.exists() {
		return nil, nil
	}
	l := f.lock()
	got, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("look at the lock in %s: %w", f.dir, err)
	}
	if got {
		return nil, l.Unlock()
	}
	return f.readState()
}

func (f *folder) readState() (*state, error) {
	text, err := os.ReadFile(f.statePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errStarting
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read state %s: %w", f.statePath(), err)
	}
	if !s.Ready {
		return &s, errStarting
	}
	return &s, nil
}

// errStarting means that the lock is held and nothing is served yet.
var errStarting = errors.New("another process starts or stops the stack of this folder; try again in a moment")

// writeState replaces the file in one step. It holds local development keys:
// readable by the owner alone.
func (f *folder) writeState(s state) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := f.statePath() + ".tmp"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return os.Rename(tmp, f.statePath())
}

func (f *folder) removeState() { _ = os.Remove(f.statePath()) }
