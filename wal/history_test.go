package wal_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/wal"
)

// A server that comes back without what was streamed ends the reader: it was put
// back to an earlier state, or is a standby that lagged. One that was promoted and
// has everything does not.
func TestServerWentBack(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		putBack, promote, want bool
	}{
		"the same":             {},
		"put back":             {putBack: true, want: true},
		"promoted, lagging":    {putBack: true, promote: true, want: true},
		"promoted, everything": {promote: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Private(t)
			db.ExecAs("postgres", table)
			s := newSink()
			ended := make(chan error, 1)
			r := started(t, db, s, ended, func(c *wal.Config) { c.StatusEvery = 20 * time.Millisecond })
			live(t, r)
			db.Exec("insert into public.t values (1)")
			s.wait(t, 1)
			dir := value[string](t, db, "show data_directory")
			db.StopServer()
			run(t, "cp", "-a", dir, dir+".old")
			db.StartServer()
			live(t, r)
			db.Exec("insert into public.t select g from generate_series(2, 2001) g")
			s.wait(t, 2001)
			until(t, "everything is handed on", func() bool { return r.State().Handed >= position(t, db) })
			had := r.State().Handed
			db.StopServer()
			if tt.putBack {
				run(t, "rm", "-r", dir)
				run(t, "mv", dir+".old", dir)
			}
			if tt.promote { // as a recovery that ends does
				appendTo(t, filepath.Join(dir, "postgresql.auto.conf"), "restore_command = '/bin/false'\n")
				appendTo(t, filepath.Join(dir, "recovery.signal"), "")
			}
			db.StartServer()
			if !tt.want {
				live(t, r)
				db.Exec("insert into public.t values (5000)")
				s.wait(t, 2002)
				if n := r.State().Gaps; n != 0 {
					t.Errorf("%d gaps", n)
				}
				return
			}
			select {
			case err := <-ended:
				back := new(wal.WentBackError)
				if !errors.As(err, &back) || back.To == 0 || back.To >= had || r.State().Gaps != 1 {
					t.Errorf("had %s, %d gaps, ended with %v", had, r.State().Gaps, err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the reader goes on")
			}
		})
	}
}

// run runs a command of the system: cp -a keeps the owner, who is the server's user.
func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A history file names where each timeline was left.
func TestForkIn(t *testing.T) {
	history := "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tbefore 2000-01-01 00:00:00+00\n"
	for timeline, want := range map[int32]sluice.LSN{1: 0x3000148, 2: 0x5000000, 3: 0, 11: 0} {
		if got := wal.ForkIn([]byte(history), timeline); got != want {
			t.Errorf("timeline %d: %s, want %s", timeline, got, want)
		}
	}
	for _, text := range []string{"", "1", "1 x", "x 0/1", "\x00\t\t\n1\t0/\n"} {
		if got := wal.ForkIn([]byte(text), 1); got != 0 {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func FuzzForkIn(f *testing.F) {
	f.Add("1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tbefore\n", int32(2))
	f.Add("\x00\t\t\n1\t0/\n", int32(1))
	f.Fuzz(func(t *testing.T, history string, timeline int32) {
		at := wal.ForkIn([]byte(history), timeline)
		// What it says stands in a line of that timeline.
		if at != 0 && !strings.Contains(history, strconv.Itoa(int(timeline))) {
			t.Errorf("%s for timeline %d of %q", at, timeline, history)
		}
		if behind := "\n" + strconv.Itoa(int(timeline)) + "\t0/7\tx\n"; at == 0 && wal.ForkIn([]byte(history+behind), timeline) != 7 {
			t.Errorf("a line behind %q is not found", history)
		}
	})
}
