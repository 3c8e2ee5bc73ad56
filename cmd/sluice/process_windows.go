package main

import (
	"os"
	"os/exec"
	"syscall"
)

// terminate ends a process. Windows has no signal for a clean end of another
// console; PostgreSQL recovers from its log at the next start.
func terminate(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

// background detaches cmd from the console.
func background(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
