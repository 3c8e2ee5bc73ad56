package gateway

import (
	"bufio"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sluice-dev/sluice"
)

// recorder notes what the access log tells, and keeps the CORS headers on
// whatever a service answers. A socket's server lets go of it with the request.
type recorder struct {
	http.ResponseWriter
	start    time.Time
	id       string
	origin   string // whose pages may read the answer; see allowed
	identity sluice.Identity
	shown    string // the API key, redacted
	refused  sluice.Code
	status   int
	bytes    int64
	hijacked bool
	timed    atomic.Bool // the service has set a deadline of its own
}

// A client must take a part of an answer within takeTimeout, or is cut off: what
// is written is in memory until then. There is no limit on an answer as a whole.
const (
	takeTimeout = 30 * time.Second
	partSize    = 32 << 10
)

// extend gives what is written next its own deadline. It ignores the error of a
// writer that knows no deadlines (in tests).
func (r *recorder) extend() {
	if !r.hijacked && !r.timed.Load() {
		_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Now().Add(takeTimeout))
	}
}

// SetWriteDeadline is for a service with other limits, which hold until it sets
// the zero time.
func (r *recorder) SetWriteDeadline(t time.Time) error {
	r.timed.Store(!t.IsZero())
	return http.NewResponseController(r.ResponseWriter).SetWriteDeadline(t)
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
		setCORS(r.Header(), r.origin)
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (n int, err error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	for err == nil && n < len(b) {
		r.extend()
		var taken int
		taken, err = r.ResponseWriter.Write(b[n:min(len(b), n+partSize)])
		n += taken
	}
	r.bytes += int64(n)
	return n, err
}

// FlushError sends what was written so far.
func (r *recorder) FlushError() error {
	r.extend()
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Hijack hands the connection to the WebSocket library.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil {
		r.hijacked, r.status = true, http.StatusSwitchingProtocols
	}
	return c, rw, err
}
