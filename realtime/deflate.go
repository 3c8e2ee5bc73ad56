package realtime

import (
	"bytes"
	"compress/flate"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
)

// permessage-deflate (RFC 7692) without context takeover on either side: each
// message is compressed for itself, so that all receivers share the bytes and an
// idle connection keeps no window.

// upgrade answers the handshake and takes the socket over. compressed reports
// whether the client offered compression and this server is configured for it.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) (nc net.Conn, ahead []byte, compressed bool, err error) {
	var u ws.HTTPUpgrader
	ext := wsflate.Extension{Parameters: wsflate.Parameters{ServerNoContextTakeover: true, ClientNoContextTakeover: true}}
	if s.cfg.Compression {
		u.Negotiate = ext.Negotiate
	}
	nc, rw, _, err := u.Upgrade(r, w)
	if err != nil {
		if nc != nil {
			_ = nc.Close()
		}
		return nil, nil, false, err
	}
	_, compressed = ext.Accepted()
	return nc, readAhead(rw), compressed, nil
}

// minDeflate is the payload below which compression gains less than it costs.
const minDeflate = 256

// tail ends every compressed message; it is not sent. With lastBlock behind it
// a reader sees the end of the stream.
const (
	tail      = "\x00\x00\xff\xff"
	lastBlock = "\x01\x00\x00\xff\xff"
)

var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(io.Discard, flate.BestSpeed) // the level is valid
	return w
}}

// deflated returns the compressed form of a whole server frame, or the frame
// itself when that is no shorter.
func deflated(frame []byte) []byte {
	head := 2
	switch frame[1] {
	case 126:
		head = 4
	case 127:
		head = 10
	}
	payload := frame[head:]
	if len(payload) < minDeflate {
		return frame
	}
	buf := bytes.NewBuffer(newPayload(len(payload)))
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(buf)
	_, _ = w.Write(payload) // into memory
	_ = w.Flush()
	out := bytes.TrimSuffix(buf.Bytes(), []byte(tail))
	if len(out)-frameRoom >= len(payload) {
		return frame
	}
	out = newFrame(out, ws.OpCode(frame[0]&0x0f))
	out[0] |= 0x40 // RSV1
	return out
}

var inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}

// inflate returns what p, a compressed message, holds: at most limit bytes. The
// result is a buffer of messages; errors are a *protocolError.
func inflate(p []byte, limit int) (*[]byte, error) {
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	src := io.MultiReader(bytes.NewReader(p), bytes.NewReader([]byte(tail+lastBlock)))
	_ = r.(flate.Resetter).Reset(src, nil) // flate's never fails
	msg := getMessage()
	buf := bytes.NewBuffer(*msg)
	n, err := buf.ReadFrom(io.LimitReader(r, int64(limit)+1))
	*msg = buf.Bytes()
	switch {
	case n > int64(limit):
		err = &protocolError{ws.StatusMessageTooBig, "message is too big"}
	case err != nil:
		err = &protocolError{ws.StatusInvalidFramePayloadData, "compressed message cannot be read"}
	}
	if err != nil {
		putMessage(msg)
		return nil, err
	}
	return msg, nil
}
