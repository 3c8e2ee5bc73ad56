package e2e_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestGaps holds the form of gaps.txt: a tag once, and a reason.
func TestGaps(t *testing.T) {
	text, err := os.ReadFile("gaps.txt")
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^(realtime|pgchanges|auth|auth-sec|rest|gateway|doctor):([A-Z]+-)?\d+ \S.{10,}$`)
	seen := map[string]bool{}
	for n, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		tag, _, _ := strings.Cut(line, " ")
		if !form.MatchString(line) || seen[tag] {
			t.Errorf("gaps.txt:%d: %q is not a new TAG with a reason", n+1, line)
		}
		seen[tag] = true
	}
}
