package realtime

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
)

// frameRoom is the room that newFrame's callers leave before a payload, for the
// longest header of an unmasked frame.
const frameRoom = 10

// newFrame turns buf, whose payload starts at frameRoom, into a whole server
// frame. The result shares buf's memory and may be sent to any number of
// sockets.
func newFrame(buf []byte, op ws.OpCode) []byte {
	n := len(buf) - frameRoom
	first := 0x80 | byte(op)
	switch {
	case n < 126:
		buf[8], buf[9] = first, byte(n)
		return buf[8:]
	case n <= 0xffff:
		buf[6], buf[7] = first, 126
		binary.BigEndian.PutUint16(buf[8:], uint16(n))
		return buf[6:]
	}
	buf[0], buf[1] = first, 127
	binary.BigEndian.PutUint64(buf[2:], uint64(n))
	return buf
}

// newPayload returns an empty buffer for newFrame with room for size bytes.
func newPayload(size int) []byte { return make([]byte, frameRoom, frameRoom+size) }

func controlFrame(op ws.OpCode, payload []byte) []byte {
	return newFrame(append(newPayload(len(payload)), payload...), op)
}

// protocolError ends a socket with a close code.
type protocolError struct {
	code   ws.StatusCode
	reason string
}

func (e *protocolError) Error() string { return e.reason }

// errClosing ends the read loop after this side has said goodbye.
var errClosing = errors.New("connection is closing")

// frameReader reads client frames. An idle one holds smallRead bytes: what
// arrives first is read there, header and short payload in one call, and the
// rest of a longer payload straight into the message.
type frameReader struct {
	nc   net.Conn
	last *atomic.Int64 // time of the last bytes
	now  func() int64
	max  int
	// control is handed pings, pongs and the peer's goodbye as they come.
	control func(op ws.OpCode, payload []byte) error
	r, w    int16
	hdr     [ws.MaxHeaderSize]byte
	small   [smallRead]byte
	ahead   []byte // bytes that net/http had read already
	deflate bool   // compressed messages may come, fixed after the handshake
}

const smallRead = 256

// Read implements io.Reader over what was read already, then the socket.
func (r *frameReader) Read(p []byte) (int, error) {
	if len(r.ahead) > 0 {
		n := copy(p, r.ahead)
		r.ahead = r.ahead[n:]
		return n, nil
	}
	r.ahead = nil
	if r.r == r.w {
		if len(p) >= smallRead {
			n, err := r.nc.Read(p)
			r.touch(n)
			return n, err
		}
		n, err := r.nc.Read(r.small[:])
		r.touch(n)
		r.r, r.w = 0, int16(n)
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, r.small[r.r:r.w])
	r.r += int16(n)
	return n, nil
}

// empty reports whether nothing is read that was not handed out yet.
func (r *frameReader) empty() bool { return r.r == r.w && len(r.ahead) == 0 }

func (r *frameReader) touch(n int) {
	if n > 0 {
		r.last.Store(r.now())
	}
}

// messages are the buffers of messages being read.
var messages = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// maxPooled is the largest message buffer that is kept for the next one.
const maxPooled = 64 << 10

func getMessage() *[]byte { return messages.Get().(*[]byte) }

func putMessage(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		messages.Put(b)
	}
}

// next reads one message and puts its fragments together. The buffer belongs to
// the caller, who gives it back with putMessage. Errors are a *protocolError,
// control's or the socket's.
func (r *frameReader) next() (msg *[]byte, binary bool, err error) {
	state := ws.StateServerSide
	var op ws.OpCode
	compressed := false
	defer func() {
		if err != nil && msg != nil {
			putMessage(msg)
			msg = nil
		}
	}()
	for {
		h, err := ws.ReadHeaderBuffer(r, r.hdr[:0])
		if err != nil {
			if errors.Is(err, ws.ErrHeaderLengthMSB) || errors.Is(err, ws.ErrHeaderLengthUnexpected) {
				err = &protocolError{ws.StatusProtocolError, err.Error()}
			}
			return msg, false, err
		}
		if r.deflate && h.Rsv1() && (h.OpCode == ws.OpText || h.OpCode == ws.OpBinary) {
			compressed = true
			h.Rsv = ws.Rsv(false, h.Rsv2(), h.Rsv3())
		}
		if err := ws.CheckHeader(h, state); err != nil {
			return msg, false, &protocolError{ws.StatusProtocolError, err.Error()}
		}
		if h.OpCode.IsControl() {
			var buf [ws.MaxControlFramePayloadSize]byte
			p := buf[:h.Length]
			if _, err := io.ReadFull(r, p); err != nil {
				return msg, false, err
			}
			ws.Cipher(p, h.Mask, 0)
			if err := r.control(h.OpCode, p); err != nil {
				return msg, false, err
			}
			continue
		}
		if msg == nil {
			msg, op = getMessage(), h.OpCode
			state = state.Set(ws.StateFragmented)
		}
		if h.Length > int64(r.max-len(*msg)) {
			return msg, false, &protocolError{ws.StatusMessageTooBig, "message is too big"}
		}
		if *msg, err = r.payload(*msg, int(h.Length), h.Mask); err != nil {
			return msg, false, err
		}
		if h.Fin && compressed {
			plain, err := inflate(*msg, r.max)
			putMessage(msg)
			return plain, op == ws.OpBinary, err
		}
		if h.Fin {
			return msg, op == ws.OpBinary, nil
		}
	}
}

// payload appends n bytes of the socket to dst. The length is the peer's word:
// memory grows with what arrives.
func (r *frameReader) payload(dst []byte, n int, mask [4]byte) ([]byte, error) {
	const chunk = 32 << 10
	start := len(dst)
	for n > 0 {
		step := min(n, max(chunk, cap(dst)-len(dst)))
		at := len(dst)
		if cap(dst)-at < step {
			grown := make([]byte, at, min(at+n, max(2*cap(dst), at+step)))
			copy(grown, dst)
			dst = grown
		}
		dst = dst[:at+step]
		if _, err := io.ReadFull(r, dst[at:]); err != nil {
			return dst[:at], err
		}
		n -= step
	}
	ws.Cipher(dst[start:], mask, 0)
	return dst, nil
}

// batch is the frames that wait for one socket, and the buffer that joins them
// into one write. An idle connection holds none.
type batch struct {
	frames [][]byte
	bytes  int
	joined []byte
	rest   []byte // of a write that was begun
}

var batches = sync.Pool{New: func() any { return new(batch) }}

func getBatch() *batch { return batches.Get().(*batch) }

func putBatch(b *batch) {
	clear(b.frames)
	if cap(b.frames) > 1024 {
		b.frames = nil
	}
	b.frames, b.bytes, b.rest = b.frames[:0], 0, nil
	batches.Put(b)
}

func (b *batch) add(frame []byte) {
	b.frames = append(b.frames, frame)
	b.bytes += len(frame)
}

// maxJoined is the most that is copied for one write; beyond it copying costs
// more than a vectored write.
const maxJoined = 32 << 10

// join returns all frames as one piece, nil when that would cost too much.
func (b *batch) join() []byte {
	switch {
	case len(b.frames) == 1:
		return b.frames[0]
	case b.bytes > maxJoined:
		return nil
	}
	b.joined = b.joined[:0]
	for _, f := range b.frames {
		b.joined = append(b.joined, f...)
	}
	return b.joined
}

// writeTo writes all frames, or the rest of a write that was begun, in one call
// wherever the socket allows it.
func (b *batch) writeTo(nc net.Conn) error {
	p := b.rest
	if p == nil {
		p = b.join()
	}
	if p != nil {
		_, err := nc.Write(p)
		return err
	}
	bufs := net.Buffers(b.frames)
	frames := b.frames
	_, err := bufs.WriteTo(nc)
	b.frames = frames
	return err
}

// discard reads and forgets what the peer still sends, so that the close frame
// is not lost to a reset, until it hangs up or the deadline comes.
func discard(nc net.Conn, limit int64, wait time.Duration) {
	if tcp, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = tcp.CloseWrite()
	}
	_ = nc.SetReadDeadline(time.Now().Add(wait))
	_, _ = io.Copy(io.Discard, io.LimitReader(nc, limit))
}
