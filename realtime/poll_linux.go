package realtime

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/sluice-dev/sluice"
)

// poller tells when an idle socket can be read, so that an idle connection holds
// no goroutine and no stack. It is an epoll of its own that the runtime's poller
// watches in turn: no thread blocks in it.
//
// A socket is watched for one event at a time (EPOLLONESHOT, by level): between
// the event and the next watch its reader runs, and nobody else looks.
type poller struct {
	fd    int
	file  *os.File // of fd
	ended chan struct{}
	over  atomic.Bool // close was called

	mu     sync.Mutex
	conns  map[int32]*conn // by descriptor
	broken bool            // nothing is watched any more
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // else NewFile's reads would block a thread
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	return &poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), ended: make(chan struct{}), conns: map[int32]*conn{}}, nil
}

// run wakes conns until close. Should the epoll fail, every reader waits itself
// from then on.
func (p *poller) run(log *slog.Logger) {
	defer close(p.ended)
	if err := p.loop(); err != nil {
		log.Error("idle sockets need a goroutine each", sluice.LogError, err)
		p.mu.Lock()
		p.broken = true
		conns := slices.Collect(maps.Values(p.conns))
		p.mu.Unlock()
		for _, c := range conns {
			c.wake()
		}
	}
}

// loop returns nil once the epoll is closed.
func (p *poller) loop() error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("read epoll: %w", err)
	}
	events := make([]syscall.EpollEvent, 256)
	ready := make([]*conn, 0, len(events))
	for {
		n := 0
		var waitErr error
		err := raw.Read(func(uintptr) bool {
			n, waitErr = syscall.EpollWait(p.fd, events, 0)
			return n > 0 || waitErr != nil
		})
		switch {
		case p.over.Load(): // a raw read of a closed file has no error of its own to ask for
			return nil
		case errors.Is(waitErr, syscall.EINTR):
			continue
		case err != nil || waitErr != nil:
			return fmt.Errorf("read epoll: %w", errors.Join(err, waitErr))
		}
		p.mu.Lock()
		for _, e := range events[:n] {
			if c := p.conns[e.Fd]; c != nil {
				ready = append(ready, c)
			}
		}
		p.mu.Unlock()
		for _, c := range ready {
			c.wake()
		}
		clear(ready)
		ready = ready[:0]
	}
}

// close ends run and waits for it. No conn may be left.
func (p *poller) close() {
	p.over.Store(true)
	_ = p.file.Close()
	<-p.ended
}

// add makes c known, without asking for events yet. It reports false when its
// socket is none of the kernel's, such as a pipe or TLS: its reader waits itself.
func (p *poller) add(c *conn) bool {
	sc, ok := c.nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	if err := raw.Control(func(fd uintptr) {
		ok = syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, int(fd), &syscall.EpollEvent{Events: syscall.EPOLLONESHOT, Fd: int32(fd)}) == nil
		if ok {
			c.fd = int32(fd)
			p.mu.Lock()
			p.conns[c.fd] = c
			p.mu.Unlock()
		}
	}); err != nil || !ok {
		return false
	}
	c.raw = raw
	return true
}

// watch asks for one event of c's socket, which c.wake gets; at once when there
// is something to read already. It reports whether that could be done.
func (p *poller) watch(c *conn) bool {
	p.mu.Lock()
	broken := p.broken
	p.mu.Unlock()
	if broken {
		return false
	}
	var failed error
	err := c.raw.Control(func(fd uintptr) {
		failed = syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_MOD, int(fd), &syscall.EpollEvent{
			Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(fd),
		})
	})
	return err == nil && failed == nil
}

// forget drops c; closing its socket takes that off the epoll. One that was cut
// before has perhaps left its descriptor to another.
func (p *poller) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[c.fd] == c {
		delete(p.conns, c.fd)
	}
}

// writeFD writes as much of p as the socket takes at once.
func writeFD(fd uintptr, p []byte) (int, error) {
	n, err := syscall.Write(int(fd), p)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return 0, nil
	}
	return 0, err
}
