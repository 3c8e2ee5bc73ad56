package policytest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// Options say how much Run does. It ends with the first bound that it reaches.
type Options struct {
	Seed     uint64
	Worlds   int           // generated schemas, 0: no bound
	Triples  int64         // of identity, row and policies, 0: no bound
	Duration time.Duration // no world begins later, 0: no bound
	// Sets is the number of sets of policies in a world, Rows and Identities are
	// those of a world.
	Sets, Rows, Identities int
	Workers                int
	Deciders               []Decider
	// Found receives each disagreement, shrunk; the run goes on.
	Found func(Disagreement)
}

// Disagreement is a case in which a decider is wrong.
type Disagreement struct {
	Decider string
	World   *World
	Want    [][]Answer
	Got     [][]Answer
	Text    string // the file of the case
}

// Count is what happened to the triples of a kind.
type Count struct{ Triples, Yes int64 }

// Report counts what Run compared.
type Report struct {
	Seed          uint64
	Worlds, Sets  int64
	Invalid       int64 // sets of policies that PostgreSQL refused
	All           Count
	Shapes        map[string]Count
	Claimed       map[string]map[string]int64 // triples by tier and shape
	Tiers         map[string]Count            // triples that a decider claimed
	Gaps          map[string]int64            // no instead of yes, for a known reason
	PlanDependent int64                       // triples that were accepted because PostgreSQL says so under another plan
	Disagreements int64                       // sets of policies
	Took          time.Duration
}

type runner struct {
	opt     Options
	began   time.Time
	next    atomic.Uint64
	triples atomic.Int64

	// mu guards report and orders calls of Found.
	mu     sync.Mutex
	report Report
}

// Run compares the deciders with the oracle over generated worlds. The n-th world
// of a seed is always the same.
func Run(t testing.TB, opt Options) *Report {
	t.Helper()
	r := &runner{opt: opt, began: time.Now(), report: Report{Seed: opt.Seed, Shapes: map[string]Count{}, Claimed: map[string]map[string]int64{}, Tiers: map[string]Count{}, Gaps: map[string]int64{}}}
	envs := make([]*Env, max(opt.Workers, 1))
	for i := range envs {
		envs[i] = NewEnv(t)
	}
	g, ctx := errgroup.WithContext(context.Background())
	for _, e := range envs {
		g.Go(func() error { return r.work(ctx, e) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	r.report.Took = time.Since(r.began)
	return &r.report
}

func (r *runner) work(ctx context.Context, e *Env) error {
	for {
		n := r.next.Add(1) - 1
		switch {
		case r.opt.Worlds > 0 && n >= uint64(r.opt.Worlds),
			r.opt.Triples > 0 && r.triples.Load() >= r.opt.Triples,
			r.opt.Duration > 0 && time.Since(r.began) >= r.opt.Duration:
			return nil
		}
		if err := r.world(ctx, e, r.opt.Seed*1_000_000+n); err != nil {
			return fmt.Errorf("world %d of seed %d: %w", n, r.opt.Seed, err)
		}
	}
}

// world compares one generated schema under several sets of policies.
func (r *runner) world(ctx context.Context, e *Env, seed uint64) error {
	g := e.generate(seed, r.opt.Rows, r.opt.Identities)
	if err := e.Load(ctx, g.w); err != nil {
		return fmt.Errorf("%w\n%s", err, strings.Join(g.w.sql(), ";\n"))
	}
	r.mu.Lock()
	r.report.Worlds++
	r.mu.Unlock()
	for range r.opt.Sets {
		w := g.with(g.policies())
		if err := e.Swap(ctx, w); err != nil {
			var pe *pgconn.PgError
			if !errors.As(err, &pe) {
				return err
			}
			// Not every pair of types has the operator: such a policy does not exist.
			r.mu.Lock()
			r.report.Invalid++
			r.mu.Unlock()
			continue
		}
		if err := r.compare(ctx, e, w); err != nil {
			return fmt.Errorf("%w\n%s", err, w)
		}
	}
	return nil
}

func (r *runner) compare(ctx context.Context, e *Env, w *World) error {
	want, err := Ask(ctx, w)
	if err != nil {
		return fmt.Errorf("oracle: %w", err)
	}
	r.count(w, want)
	for _, d := range r.opt.Deciders {
		got, err := d.Decide(ctx, w)
		if err != nil {
			return fmt.Errorf("tier %s: %w", d.Name(), err)
		}
		gaps := map[string]int64{}
		wrong, open, err := disagrees(ctx, d, w, want, got, gaps)
		if err != nil {
			return fmt.Errorf("oracle: %w", err)
		}
		r.mu.Lock()
		r.report.PlanDependent += open
		for name, n := range gaps {
			r.report.Gaps[d.Name()+": "+name] += n
		}
		c := r.report.Tiers[d.Name()]
		before := c.Triples
		for i := range got {
			for _, a := range got[i] {
				if a != NotMine {
					c.Triples++
				}
				if a == Yes {
					c.Yes++
				}
			}
		}
		r.report.Tiers[d.Name()] = c
		claimed := r.report.Claimed[d.Name()]
		if claimed == nil {
			claimed = map[string]int64{}
			r.report.Claimed[d.Name()] = claimed
		}
		for _, s := range w.shapes() {
			claimed[s] += c.Triples - before
		}
		r.mu.Unlock()
		if !wrong {
			continue
		}
		small, err := e.minimise(ctx, w, d)
		if err != nil {
			return fmt.Errorf("shrink: %w", err)
		}
		r.mu.Lock()
		r.report.Disagreements++
		if r.opt.Found != nil {
			r.opt.Found(*small)
		}
		r.mu.Unlock()
		if err := e.Load(ctx, w); err != nil { // for the sets that follow
			return err
		}
	}
	return nil
}

func (r *runner) count(w *World, want [][]Answer) {
	var c Count
	for i := range want {
		for _, a := range want[i] {
			c.Triples++
			if a == Yes {
				c.Yes++
			}
		}
	}
	r.triples.Add(c.Triples)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Sets++
	r.report.All.Triples += c.Triples
	r.report.All.Yes += c.Yes
	for _, s := range w.shapes() {
		o := r.report.Shapes[s]
		r.report.Shapes[s] = Count{o.Triples + c.Triples, o.Yes + c.Yes}
	}
}

// disagrees reports whether d is wrong, and how many triples depend on the plan.
func disagrees(ctx context.Context, d Decider, w *World, want, got [][]Answer, gaps map[string]int64) (wrong bool, open int64, err error) {
	n := differences(d, w, want, got, map[string]int64{})
	if n > 0 {
		mine := make([][]Answer, len(want)) // other deciders are compared with what was asked first
		for i := range want {
			mine[i] = slices.Clone(want[i])
		}
		if open, err = reconcile(ctx, w, mine, got); err != nil {
			return false, 0, err
		}
		want = mine
	}
	return differences(d, w, want, got, gaps) > 0, open, nil
}

// differences counts the answers of d that are wrong and notes in gaps those that
// are wrong for a known reason.
func differences(d Decider, w *World, want, got [][]Answer, gaps map[string]int64) (n int) {
	accepts, _ := d.(gapped)
	for i := range want {
		for k := range want[i] {
			g := NotMine // a missing answer is none
			if i < len(got) && k < len(got[i]) {
				g = got[i][k]
			} else {
				n++
			}
			if g == NotMine || g == want[i][k] {
				continue
			}
			if g == No && accepts != nil {
				known := slices.IndexFunc(w.gaps(i), accepts.Gap)
				if known >= 0 {
					gaps[w.gaps(i)[known]]++
					continue
				}
			}
			n++
		}
	}
	return n
}

// String is the table that make fuzz-policy prints.
func (r *Report) String() string {
	var b strings.Builder
	share := func(n int64) float64 { return 100 * float64(n) / float64(max(r.All.Triples, 1)) }
	fmt.Fprintf(&b, "seed %d: %d triples, %d of them visible, %d worlds, %d sets of policies (%d more refused by PostgreSQL), %d disagreements, %s (%.0f triples/s)\n",
		r.Seed, r.All.Triples, r.All.Yes, r.Worlds, r.Sets, r.Invalid, r.Disagreements, r.Took.Round(time.Millisecond), float64(r.All.Triples)/r.Took.Seconds())
	fmt.Fprintf(&b, "%-34s %9s %7s %8s\n", "tier", "triples", "share", "visible")
	line := func(name string, c Count) {
		fmt.Fprintf(&b, "%-34s %9d %6.1f%% %8d", name, c.Triples, share(c.Triples), c.Yes)
	}
	tiers := slices.Sorted(maps.Keys(r.Tiers))
	for _, name := range tiers {
		line(name, r.Tiers[name])
		b.WriteByte('\n')
	}
	b.WriteString("expression shape, and how much of it the tiers claim\n")
	for _, shape := range slices.Sorted(maps.Keys(r.Shapes)) {
		c := r.Shapes[shape]
		line(shape, c)
		for _, name := range tiers {
			fmt.Fprintf(&b, "  %s: %.0f%%", name, 100*float64(r.Claimed[name][shape])/float64(max(c.Triples, 1)))
		}
		b.WriteByte('\n')
	}
	for _, name := range slices.Sorted(maps.Keys(r.Gaps)) {
		fmt.Fprintf(&b, "known difference, tier %s: %d triples denied that PostgreSQL shows\n", name, r.Gaps[name])
	}
	fmt.Fprintf(&b, "in %d triples PostgreSQL says one or the other, depending on the plan, as something can raise an error\n", r.PlanDependent)
	return b.String()
}
