// Package leak finds goroutines that outlive a test.
package leak

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// wait is how long goroutines may take to end after the last test.
const wait = 5 * time.Second

// Main runs a package's tests and fails them when a goroutine is left behind:
//
//	func TestMain(m *testing.M) { leak.Main(m) }
//
// Each of before runs first: it ends what the tests of the package share.
func Main(m *testing.M, before ...func()) { os.Exit(Run(m, before...)) }

// Run is Main for a package that has to clean up before the exit: it returns
// the exit code.
func Run(m *testing.M, before ...func()) int {
	code := m.Run()
	for _, end := range before {
		end()
	}
	if code == 0 {
		if left := settle(nil); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "leak: %d goroutines outlive the tests\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	return code
}

// Check fails t when goroutines that started after the call outlive it. It is
// of no use in parallel tests, whose goroutines it cannot tell apart.
func Check(t testing.TB) {
	before := map[string]bool{}
	for _, g := range goroutines() {
		before[id(g)] = true
	}
	t.Cleanup(func() {
		if left := settle(before); len(left) > 0 {
			t.Errorf("%d goroutines outlive the test\n\n%s", len(left), strings.Join(left, "\n\n"))
		}
	})
}

// settle waits until no goroutine but the known ones is left, and returns those
// that stay.
func settle(known map[string]bool) (left []string) {
	for deadline := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		left = left[:0]
		for _, g := range goroutines() {
			if !known[id(g)] && !ignored(g) {
				left = append(left, g)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

func goroutines() []string {
	for size := 1 << 20; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return strings.Split(string(buf[:n]), "\n\n")
		}
	}
}

// id returns "goroutine 17", the start of a stack.
func id(stack string) string {
	name, _, _ := strings.Cut(stack, " [")
	return name
}

// ignored tells goroutines that belong to the runtime or to package testing, and
// the one that waits for pgtest's server, which ends with the test process.
func ignored(stack string) bool {
	for _, part := range []string{
		"internal/leak.goroutines", "testing.(*M).", "testing.tRunner", "testing.runFuzz", "testing.(*F).",
		"os/signal.", "runtime.ensureSigM", "runtime.ReadTrace", "runtime/pprof.", "devpg.startProcess.",
	} {
		if strings.Contains(stack, part) {
			return true
		}
	}
	return false
}
