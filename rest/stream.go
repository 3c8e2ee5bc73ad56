package rest

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// stream sends a large answer as it comes from PostgreSQL, so that it is nowhere
// in memory as a whole. Meanwhile the request holds its connection: so only
// Config.LargeAnswers are sent this way at once, and who is too slow is cut off.
type stream struct {
	s     *Server
	w     http.ResponseWriter
	h     *http.Request
	begin func(row [][]byte) (*answer, error) // the answer without its body

	size, sent int64 // bytes of the body; size is 0 until it begins
	end        time.Time
	refused    error       // what begin said
	gone       error       // what the client's socket said
	unwatch    func() bool // the request's context
}

// minRate is how fast a large answer must be taken, on the whole, in bytes a second.
const minRate = 64 << 10

// large is a pg.LargeFunc.
func (st *stream) large(row [][]byte, size int64) (io.Writer, error) {
	a, err := st.begin(row)
	switch {
	case err != nil:
		st.refused = err
		return nil, err
	case !a.hasBody(st.h):
		return nil, nil
	}
	select {
	case st.s.large <- struct{}{}:
	default:
		return nil, nil
	}
	st.size = size
	st.end = time.Now().Add(st.s.cfg.StallTimeout + time.Duration(size/minRate)*time.Second)
	st.unwatch = context.AfterFunc(st.h.Context(), func() { st.deadline(time.Now()) })
	a.head(st.w, st.h, size)
	return st, nil
}

// Write sends a part of the body. The client must take it in time.
func (st *stream) Write(part []byte) (int, error) {
	until := time.Now().Add(st.s.cfg.StallTimeout)
	if until.After(st.end) {
		until = st.end
	}
	st.deadline(until)
	if err := st.h.Context().Err(); err != nil { // a deadline in the past may just have been lost
		return 0, err
	}
	n, err := st.w.Write(part)
	st.sent += int64(n)
	st.gone = err
	return n, err
}

func (st *stream) deadline(t time.Time) {
	_ = http.NewResponseController(st.w).SetWriteDeadline(t) // none, where there is no socket
}

// finish ends an answer that has begun, and reports whether one has. What is not
// whole is cut off, so that nobody takes it for whole.
func (st *stream) finish(err error) bool {
	if st.size == 0 {
		return false
	}
	<-st.s.large
	st.unwatch()
	st.deadline(time.Time{})
	if st.sent == st.size {
		return true // what failed behind it has nothing to do with it
	}
	log := st.s.log.Error
	if st.gone != nil || st.h.Context().Err() != nil {
		log = st.s.log.Debug
	}
	log("large answer broken off", sluice.LogRequest, st.h.Header.Get("X-Request-Id"), "sent", st.sent, "size", st.size, sluice.LogError, err)
	panic(http.ErrAbortHandler)
}

// streams makes st take the plan's answer, if it may be sent before the
// transaction has ended: of what reads only, with all that its head tells in the
// same row.
func (p *plan) streams(statements []pg.Statement, r *request, st *stream) {
	if !p.controlled || p.veto != nil || p.explain != nil || r.media.plan != nil {
		return
	}
	st.begin = func(row [][]byte) (*answer, error) {
		return p.read(r, []pg.Result{{Rows: [][][]byte{append(row, nil)}}})
	}
	statements[len(statements)-1].Large = st.large
}
