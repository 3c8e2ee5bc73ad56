package devpg

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// tie makes the kernel shut the child down when this process dies, however, and
// keeps the terminal's Ctrl-C away from it.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGINT
}

// runsOn reports whether pid is a process of the cluster in dir. All of them
// work in that folder; the arguments tell the postmaster of another user, whose
// folder this process may not read.
func runsOn(pid int, dir string) bool {
	proc := fmt.Sprintf("/proc/%d/", pid)
	name, err := os.ReadFile(proc + "comm")
	if err != nil || !bytes.Contains(name, []byte("postgres")) {
		return false
	}
	if here, err := os.Stat(proc + "cwd"); err == nil {
		there, err := os.Stat(dir)
		return err == nil && os.SameFile(here, there)
	}
	args, _ := os.ReadFile(proc + "cmdline") // empty when the process has ended
	return bytes.Contains(args, []byte("\x00-D\x00"+dir+"\x00"))
}

// processesOf lists the processes of the cluster in dir.
func processesOf(dir string) []int {
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	var out []int
	for _, p := range procs {
		pid, _ := strconv.Atoi(filepath.Base(p)) // digits by the pattern
		if runsOn(pid, dir) {
			out = append(out, pid)
		}
	}
	return out
}

// listener finds who listens on a port: the socket's inode in /proc/net, then
// the process that has it open.
func listener(port int) (pid int, name string) {
	var sockets []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			const listening = "0A"
			if len(f) > 9 && f[3] == listening && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				sockets = append(sockets, "socket:["+f[9]+"]")
			}
		}
	}
	if len(sockets) == 0 {
		return 0, ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well-formed
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		for _, s := range sockets {
			if target == s {
				proc := strings.Split(fd, "/")[2]
				comm, err := os.ReadFile("/proc/" + proc + "/comm")
				if err != nil {
					continue
				}
				pid, _ = strconv.Atoi(proc) // digits by the pattern
				return pid, strings.TrimSpace(string(comm))
			}
		}
	}
	return 0, ""
}
