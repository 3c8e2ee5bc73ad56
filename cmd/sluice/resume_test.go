package main

import (
	"strings"
	"testing"
	"time"
)

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
