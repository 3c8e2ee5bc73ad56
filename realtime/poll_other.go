//go:build !linux

package realtime

import "log/slog"

// poller does nothing where there is no epoll: each socket's reader waits itself.
type poller struct{}

func newPoller() (*poller, error) { return &poller{}, nil }

func (p *poller) run(*slog.Logger) {}
func (p *poller) close()           {}
func (p *poller) add(*conn) bool   { return false }
func (p *poller) watch(*conn) bool { return false }
func (p *poller) forget(*conn)     {}

// writeFD is not called: no socket is watched.
func writeFD(uintptr, []byte) (int, error) { return 0, nil }
