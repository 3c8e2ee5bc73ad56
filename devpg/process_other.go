//go:build !linux

package devpg

import (
	"os/exec"
	"strconv"
	"strings"
)

// runsOn reports whether pid is a postmaster of this data folder.
func runsOn(pid int, dir string) bool {
	out, err := exec.Command("ps", "-p", strconv.Itoa(pid), "-o", "args=").Output()
	return err == nil && strings.Contains(strings.TrimSpace(string(out))+" ", " -D "+dir+" ")
}

// processesOf lists nobody: here only the postmaster can be told by its
// arguments. Its children end by themselves soon after it; a start that comes
// too early fails with PostgreSQL's own message.
func processesOf(string) []int { return nil }

// listener asks lsof, which macOS brings.
func listener(port int) (pid int, name string) {
	out, err := exec.Command("lsof", "-nP", "-iTCP:"+strconv.Itoa(port), "-sTCP:LISTEN", "-Fpc").Output()
	if err != nil {
		return 0, ""
	}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "p") && pid == 0:
			pid, _ = strconv.Atoi(line[1:]) // 0 when it is no number
		case strings.HasPrefix(line, "c") && name == "":
			name = line[1:]
		}
	}
	return pid, name
}
