package main

import (
	"errors"
	"fmt"
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

// become runs another program and ends as it does: Windows cannot put it in this
// one's place.
func become(path string, args, env []string) error {
	cmd := exec.Command(path, args[1:]...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return exitCode(exit.ExitCode())
	}
	return fmt.Errorf("run %s: %w", path, err)
}
