//go:build unix

package devpg

import (
	"os"
	"syscall"
)

// fastShutdown disconnects clients, writes a checkpoint and ends.
func fastShutdown(p *os.Process) error { return p.Signal(syscall.SIGINT) }

// immediateShutdown ends at once; the next start recovers.
func immediateShutdown(p *os.Process) error { return p.Signal(syscall.SIGQUIT) }

// killGroup kills a process and those that it started.
func killGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
