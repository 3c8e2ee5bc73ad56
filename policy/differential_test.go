package policy_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/policy/policytest"
)

// deciders are the tiers under test.
var deciders = []policytest.Decider{policytest.Tier3{}, policytest.Compiled{}}

// environment returns a number from the environment.
func environment(t *testing.T, name string, or int64) int64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return or
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is no number", name, s)
	}
	return n
}

// Every tier agrees with what PostgreSQL shows, over generated worlds: a fixed
// number of them here, as many as make fuzz-policy asks for there (SEED, and
// TRIPLES or DURATION).
func TestTiersAgree(t *testing.T) {
	t.Parallel()
	opt := policytest.Options{
		Seed: uint64(environment(t, "SLUICE_POLICY_SEED", 1)), Worlds: 24, Sets: 12, Rows: 24, Identities: 24, Workers: 2, Deciders: deciders,
	}
	triples := environment(t, "SLUICE_POLICY_TRIPLES", 0)
	duration, err := time.ParseDuration(os.Getenv("SLUICE_POLICY_DURATION"))
	if s := os.Getenv("SLUICE_POLICY_DURATION"); s != "" && err != nil {
		t.Fatalf("SLUICE_POLICY_DURATION=%q is no duration", s)
	}
	long := triples > 0 || duration > 0
	if long {
		opt.Worlds, opt.Triples, opt.Duration = 0, triples, duration
	}
	opt.Found = func(d policytest.Disagreement) {
		t.Errorf("tier %s disagrees with PostgreSQL; a file for testdata/cases:\n%s", d.Decider, d.Text)
	}
	report := policytest.Run(t, opt)
	t.Logf("\n%s", report)
	if report.Disagreements > 0 {
		return
	}
	// A generator that makes nothing would find nothing.
	if !long && report.All.Triples < 100_000 || report.All.Yes*20 < report.All.Triples {
		t.Errorf("%d triples, %d of them visible", report.All.Triples, report.All.Yes)
	}
	if report.PlanDependent*100 > report.All.Triples {
		t.Errorf("PostgreSQL itself is of two minds about %d triples", report.PlanDependent)
	}
	for _, shape := range policytest.Shapes() {
		if report.Shapes[shape].Triples == 0 && (!long || report.Sets >= 2000) {
			t.Errorf("no triple of shape %q", shape)
		}
	}
	for _, d := range deciders {
		if report.Tiers[d.Name()].Triples == 0 {
			t.Errorf("tier %s claimed nothing", d.Name())
		}
	}
}

// Cases that a person can read, one for each common shape, and those that were
// wrong once.
func TestCases(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/cases/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases (%v)", err)
	}
	env := policytest.NewEnv(t)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := policytest.ParseCase(string(text))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		wrong, err := env.Replay(t.Context(), c, deciders)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, w := range wrong {
			t.Errorf("%s: %s", file, w)
		}
	}
}

// liar shows every row to whoever has no email.
type liar struct{ policytest.Tier3 }

func (l liar) Decide(ctx context.Context, w *policytest.World) ([][]policytest.Answer, error) {
	out, err := l.Tier3.Decide(ctx, w)
	for i := range out {
		for r := range out[i] {
			if !strings.Contains(string(w.Identities[i].Claims.JSON), `"email"`) {
				out[i][r] = policytest.Yes
			}
		}
	}
	return out, err
}

// A decider that is wrong is found, and what it is wrong about becomes a small
// case that shows it again.
func TestDisagreementsShrink(t *testing.T) {
	t.Parallel()
	var found []policytest.Disagreement
	policytest.Run(t, policytest.Options{
		Seed: 2, Worlds: 1, Sets: 2, Rows: 8, Identities: 8, Deciders: []policytest.Decider{liar{}, policytest.Tier3{}},
		Found: func(d policytest.Disagreement) { found = append(found, d) },
	})
	if len(found) == 0 {
		t.Fatal("nothing was found")
	}
	env := policytest.NewEnv(t)
	for _, d := range found {
		if w := d.World; len(w.Identities) != 1 || len(w.Rows) != 1 || len(w.Policies) > 1 || len(w.Columns) > 2 {
			t.Errorf("not small:\n%s", d.Text)
		}
		c, err := policytest.ParseCase(d.Text)
		if err != nil {
			t.Fatalf("%v\n%s", err, d.Text)
		}
		for decider, want := range map[policytest.Decider]bool{liar{}: true, policytest.Tier3{}: false} {
			wrong, err := env.Replay(t.Context(), c, []policytest.Decider{decider})
			if err != nil || (len(wrong) > 0) != want {
				t.Errorf("%T: %q (%v)\n%s", decider, wrong, err, d.Text)
			}
		}
	}
}
