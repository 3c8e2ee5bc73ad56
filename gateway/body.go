package gateway

import (
	"io"
	"net/http"
	"time"

	"github.com/sluice-dev/sluice"
)

// stallTimeout ends a request whose body stands still: the original gateway's
// time between two reads. There is no limit on a request as a whole.
const stallTimeout = 60 * time.Second

// limitBody bounds the body in bytes and in silence. A body that is announced
// too long is refused here; one that turns out too long fails to read with
// *http.MaxBytesError, which the service answers.
func limitBody(w http.ResponseWriter, r *http.Request, limit int64) *sluice.Refusal {
	if r.ContentLength > limit {
		return sluice.Refuse(sluice.CodeBodyTooLarge).
			WithText("The request body has %d bytes, at most %d are taken", r.ContentLength, limit)
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	// The server's own writer, not a wrapper: it closes the connection behind a
	// body that is too long.
	b := &patientBody{ReadCloser: http.MaxBytesReader(w, r.Body, limit), conn: http.NewResponseController(w)}
	b.extend() // holds for a body that nobody reads, too: the server drains it
	r.Body = b
	return nil
}

// patientBody gives every read of a body its own deadline.
type patientBody struct {
	io.ReadCloser
	conn *http.ResponseController
}

// extend ignores the error of a writer that knows no deadlines (in tests).
func (b *patientBody) extend() { _ = b.conn.SetReadDeadline(time.Now().Add(stallTimeout)) }

// Read leaves a deadline behind, which net/http lifts at the body's end.
func (b *patientBody) Read(p []byte) (int, error) {
	b.extend()
	return b.ReadCloser.Read(p)
}
