//go:build unix && !linux

package devpg

import "os/exec"

// tie keeps the terminal's Ctrl-C away from the child. This system has no way
// to end it with a killed parent; the next Start does.
func tie(cmd *exec.Cmd) { cmd.SysProcAttr.Setpgid = true }
