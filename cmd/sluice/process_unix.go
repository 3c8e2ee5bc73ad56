//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// terminate asks a process to end cleanly.
func terminate(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }

// background gives cmd a session of its own, so that closing the terminal does
// not end it.
func background(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
