package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

// Positions beyond the server's own are of a history that is not there any more.
func TestJournalOfAServerThatWentBack(t *testing.T) {
	admin := pgtest.New(t).Pool("supabase_admin")
	path := filepath.Join(t.TempDir(), "positions")
	for _, tt := range []struct {
		mark sluice.LSN
		kept bool
	}{{1, true}, {1 << 60, false}} {
		j, err := openJournal(t.Context(), admin, path)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Lose(tt.mark); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if j, err = openJournal(t.Context(), admin, path); err != nil {
			t.Fatal(err)
		}
		if mark := j.Mark(); mark == 0 || (mark == tt.mark) != tt.kept || mark > tt.mark {
			t.Errorf("mark %s is %s when it is opened again", tt.mark, mark)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestResumeConfig(t *testing.T) {
	env := map[string]string{}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	if r, err := resumeConfig(lookup, "here"); err != nil || r != (resumeSettings{journal: "here"}) {
		t.Errorf("nothing set: %+v %v", r, err)
	}
	env = map[string]string{
		"SLUICE_RESUME_GRACE": "2m", "SLUICE_RESUME_MEMORY_MB": "3", "SLUICE_RESUME_WAL_MB": "5", "SLUICE_RESUME_JOURNAL": "off", "SLUICE_SLOT_FAILOVER": "true",
	}
	if r, err := resumeConfig(lookup, "here"); err != nil || r != (resumeSettings{grace: 2 * time.Minute, memory: 3 << 20, wal: 5 << 20, failover: true}) {
		t.Errorf("all set: %+v %v", r, err)
	}
	env = map[string]string{"SLUICE_RESUME_GRACE": "60", "SLUICE_RESUME_MEMORY_MB": "0", "SLUICE_RESUME_WAL_MB": "x", "SLUICE_SLOT_FAILOVER": "perhaps"}
	_, err := resumeConfig(lookup, "here")
	for name := range env {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not complained about: %v", name, err)
		}
	}
}
