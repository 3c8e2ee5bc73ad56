package gateway

import (
	"bufio"
	"net"
	"net/http"
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
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
		setCORS(r.Header(), r.origin)
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
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
