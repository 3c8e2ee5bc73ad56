package devpg

import "os/exec"

type account struct {
	name     string
	uid, gid int
}

func serverAccount() (*account, error)        { return nil, nil }
func (a *account) apply(*exec.Cmd)            {}
func (a *account) canEnter(string) bool       { return true }
func checkOwner(dir string, a *account) error { return nil }
