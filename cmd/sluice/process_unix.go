//go:build unix

package main

import (
	"fmt"
	"os/exec"
	"syscall"
)

// terminate asks a process to end cleanly.
func terminate(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }

// background gives cmd a session of its own, so that closing the terminal does
// not end it.
func background(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// become runs another program in place of this one: it has the terminal and its
// signals to itself.
func become(path string, args, env []string) error {
	return fmt.Errorf("run %s: %w", path, syscall.Exec(path, args, env))
}
