package main

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/sluice-dev/sluice/devpg"
)

// heldListener keeps its port while one server ends and the next begins. Close
// ends Accept alone; connections that arrive after it wait in the system's queue
// for whoever serves next.
type heldListener struct{ *net.TCPListener }

// listen opens a loopback port, with an error that says what to change.
func listen(port int, key string) (*heldListener, error) {
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	l, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on 127.0.0.1:%s%s: %w\nSet another port as %s in supabase/config.toml, or end the other program",
			strconv.Itoa(port), devpg.Holder(port), err, key)
	}
	return &heldListener{l}, nil
}

// Close ends a running Accept and fails further ones.
func (l *heldListener) Close() error { return l.SetDeadline(time.Unix(1, 0)) }

// reopen lets Accept work again.
func (l *heldListener) reopen() error { return l.SetDeadline(time.Time{}) }

// release gives the port back.
func (l *heldListener) release() { _ = l.TCPListener.Close() }
