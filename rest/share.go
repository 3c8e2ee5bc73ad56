package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/sluice-dev/sluice"
)

// share is what one request holds of Config.BodyMemory, for its body and what is
// made of it.
type share struct {
	s    *Server
	ctx  context.Context // the request's
	held int64
}

// smallBody is what a request may have without a share, in bytes: no more than its
// connection takes anyway, so that small writes never wait for large ones.
const smallBody = 64 << 10

// hold makes the share one of n bytes at least. It waits for others to give theirs
// back as long as for a connection.
func (sh *share) hold(n int64) error {
	switch {
	case n <= smallBody || n <= sh.held:
		return nil
	case n > sh.s.cfg.BodyMemory:
		return refuse(sluice.CodeBodyTooLarge)
	}
	ctx, cancel := context.WithTimeout(sh.ctx, sh.s.cfg.AcquireTimeout)
	defer cancel()
	if err := sh.s.bodies.Acquire(ctx, n-sh.held); err != nil {
		return refuse(sluice.CodeTooManyBodies)
	}
	sh.held = n
	return nil
}

func (sh *share) release() {
	sh.s.bodies.Release(sh.held)
	sh.held = 0
}

// read reads a body of at most Config.BodyLimit bytes; length is what the client
// announces, or -1. Room is made for what has come, not for what is announced; but
// the share is one of all that is announced, so that those who have begun do not
// wait for each other.
func (sh *share) read(body io.ReadCloser, length int64) ([]byte, error) {
	body = http.MaxBytesReader(nil, body, sh.s.cfg.BodyLimit)
	begin := time.Now()
	out := make([]byte, 0, 512)
	for {
		n, err := body.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("read body: %w", err)
		case sh.held > 0 && time.Since(begin) > sh.s.cfg.StallTimeout+time.Duration(len(out)/minRate)*time.Second:
			return nil, refuse(sluice.CodeSlowSender)
		case len(out) < cap(out):
			continue
		}
		// The end shows behind the last byte.
		size := min(int64(2*cap(out)), sh.s.cfg.BodyLimit+1)
		if length >= int64(len(out)) {
			size = min(size, length+1)
		}
		if err := sh.hold(max(size-1, length)); err != nil {
			return nil, err
		}
		out = append(make([]byte, 0, size), out...)
	}
}
