package realtime

import (
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// conn is one socket. Its reader is a goroutine while there is something to read
// and, where the poller serves, only then; a writer exists only while frames
// wait. An idle conn owns no buffer but the reader's small one, no timer and,
// with a single channel, no map.
//
// send and close may be called from anywhere, handle from readLoop and from the
// goroutine that finishes a slow join.
type conn struct {
	// fixed after newConn
	srv     *Server
	nc      net.Conn
	id      int64
	vsn     phoenix.Version
	key     sluice.Claims   // the handshake's identity
	refusal *sluice.Refusal // explain mode: the answer to every join
	headers []byte          // x-* headers of the handshake as a JSON object, for policies
	request string          // request id
	poll    *poller         // nil when the reader waits itself
	raw     syscall.RawConn // of nc, and its descriptor; for poll
	fd      int32

	// read by Server.sweep
	lastRead  atomic.Int64 // when the last bytes came
	writing   atomic.Int64 // since when a write has been under way, 0 when none is
	checkAt   atomic.Int64 // Unix nanoseconds when the first token expires, 0 never
	follows   atomic.Bool  // has a channel whose position is confirmed
	emptyAt   atomic.Int64 // since when it has had no channel although it has tried to join; 0 otherwise
	connIndex int          // place in Server.conns, guarded by Server.mu
	parked    atomic.Bool  // no reader runs; who sets it to false starts one

	// owned by readLoop
	in frameReader

	// guarded by handleMu: everything that a client's frames change
	handleMu  sync.Mutex
	channels  []*channel // at most MaxChannels, so that a scan is cheaper than a map
	finished  bool       // readLoop has ended
	counted   bool       // among limits.users
	lastToken verified   // the token that was verified last; channels share its claims
	sentBack  []string   // topics whose join was sent back once; at most MaxChannels
	firstRef  uint64     // number of the first message, 0 before it
	topRef    uint64     // highest number of a message
	pinged    uint32     // number of the last ping
	unponged  bool       // which was not answered
	work      sync.WaitGroup

	// guarded by mu: the queue
	mu      sync.Mutex
	queue   *batch
	bytes   int           // waiting and being written
	busy    bool          // a writeLoop runs
	closing bool          // no frame is taken any more
	why     string        // why it was closed as a slow reader
	roomy   chan struct{} // closed when there is room again; nil unless awaited
	writers sync.WaitGroup
}

func newConn(s *Server, nc net.Conn, vsn phoenix.Version, id sluice.Identity, headers []byte) *conn {
	c := &conn{
		srv: s, nc: nc, id: s.nextConn.Add(1), vsn: vsn,
		key: id.KeyClaims, refusal: id.Refusal, headers: headers, request: id.RequestID,
	}
	if _, ok := nc.(syscall.Conn); ok {
		if p := s.poller(); p != nil && p.add(c) {
			c.poll = p
		}
	}
	c.lastRead.Store(s.now())
	c.in = frameReader{nc: nc, last: &c.lastRead, now: s.now, max: s.cfg.MaxFrame, control: c.control}
	return c
}

// serve reads until the socket is idle or ends, and reports whether it has ended:
// then its channels are taken apart and everything that was started for it is
// over. Of an idle one nothing may be touched any more; wake calls serve again.
func (c *conn) serve() (ended bool) {
	err := c.readLoop()
	if errors.Is(err, errParked) {
		return false
	}
	c.finish(err)
	if c.why != "" {
		c.srv.log.Warn("slow reader closed", sluice.LogConn, c.id, sluice.LogCode, sluice.CodeSlowReader, "why", c.why)
	}
	c.srv.log.Debug("socket closed", sluice.LogConn, c.id, sluice.LogError, err)
	return true
}

// errParked ends the read loop of a socket that is idle.
var errParked = errors.New("connection is idle")

// park gives the reader up until the poller wakes the conn, and reports whether
// that was done. A conn that is closing is not parked.
func (c *conn) park() bool {
	if c.poll == nil {
		return false
	}
	c.parked.Store(true)
	if c.poll.watch(c) && !c.isClosing() {
		return true
	}
	// Whoever woke it meanwhile has started another reader.
	return !c.parked.CompareAndSwap(true, false)
}

// wake starts the reader of a parked conn: the poller when there is something to
// read, this side when it closes.
func (c *conn) wake() {
	if c.parked.CompareAndSwap(true, false) {
		go c.srv.serve(c) // ends with the socket or when it is idle; Run waits for the socket
	}
}

// readLoop reads frames and handles them in order. It returns why it ended.
func (c *conn) readLoop() (err error) {
	err = errClosing // what a panic leaves behind
	defer c.recovered()
	for {
		buf, binary, err := c.in.next()
		if err != nil {
			return err
		}
		c.srv.metrics.FramesIn.Add(1)
		c.srv.metrics.BytesIn.Add(int64(len(*buf)))
		m, err := phoenix.Decode(c.vsn, *buf, binary)
		if err != nil {
			c.malformed(err)
		} else {
			c.locked(&m)
		}
		putMessage(buf)
		if c.in.empty() && c.park() {
			return errParked
		}
		if c.isClosing() {
			return errClosing
		}
	}
}

// recovered ends this socket alone after a bug; deferred.
func (c *conn) recovered() {
	p := recover()
	if p == nil {
		return
	}
	c.srv.metrics.Panics.Add(1)
	c.srv.log.Error("panic on a socket", sluice.LogConn, c.id, "panic", p, "stack", string(debug.Stack()))
	c.close(ws.StatusInternalServerError, "")
}

// locked handles one message under the lock; a panic does not keep it.
func (c *conn) locked(m *phoenix.Message) {
	c.handleMu.Lock()
	defer c.handleMu.Unlock()
	c.countRef(m.Ref)
	c.handle(m)
}

func (c *conn) malformed(err error) {
	c.srv.metrics.DroppedMalformed.Add(1)
	var fe *phoenix.FrameError
	if errors.As(err, &fe) {
		c.srv.log.Debug("frame dropped", sluice.LogConn, c.id, sluice.LogCode, fe.Code, sluice.LogError, fe.Reason)
	}
}

// control answers pings and the peer's goodbye.
func (c *conn) control(op ws.OpCode, payload []byte) error {
	switch op {
	case ws.OpPing:
		c.send(controlFrame(ws.OpPong, payload))
	case ws.OpPong:
		c.pong(payload)
	case ws.OpClose:
		code, reason := ws.ParseCloseFrameData(payload)
		switch {
		case len(payload) == 0:
			code = ws.StatusNormalClosure
		case len(payload) == 1 || ws.CheckCloseFrameData(code, reason) != nil && !code.IsApplicationSpec() && !code.IsPrivateSpec():
			code = ws.StatusProtocolError
		}
		return &protocolError{code, ""}
	}
	if c.isClosing() {
		return errClosing
	}
	return nil
}

// finish ends the socket after readLoop: goodbye, channels, goroutines.
func (c *conn) finish(err error) {
	c.handleMu.Lock()
	c.finished = true
	for _, ch := range c.channels {
		ch.terminate(true)
	}
	c.channels = nil
	if c.counted {
		c.srv.limits.users.Add(-1)
	}
	c.handleMu.Unlock()

	linger := true
	var pe *protocolError
	switch {
	case errors.As(err, &pe):
		if pe.code == ws.StatusProtocolError || pe.code == ws.StatusMessageTooBig {
			c.srv.metrics.ClosedProtocol.Add(1)
		}
		c.close(pe.code, pe.reason)
	case c.isClosing():
	default: // the peer is gone; nobody reads what still waits
		linger = false
		c.abort()
	}
	c.writers.Wait()
	if linger {
		discard(c.nc, 2*int64(c.srv.cfg.MaxFrame), c.srv.cfg.CloseTimeout)
	}
	if c.poll != nil {
		c.poll.forget(c)
	}
	_ = c.nc.Close()
	c.work.Wait()
}

// send queues a frame and sees to it that a writer runs. It never blocks. The
// frame is shared and read-only. When the queue is full the socket is closed:
// a client that lost one message without knowing would be worse off than one
// that reconnects. Errors of the socket show in the reader, not here.
func (c *conn) send(frame []byte) {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return
	}
	if c.queue == nil {
		c.queue = getBatch()
	}
	if c.bytes > 0 && c.bytes+len(frame) > c.srv.cfg.QueueBytes || len(c.queue.frames) >= c.srv.cfg.QueueFrames {
		c.mu.Unlock()
		c.slow("queue is full")
		return
	}
	c.queue.add(frame)
	c.bytes += len(frame)
	start := !c.busy
	if start {
		c.busy = true
		c.writers.Add(1)
	}
	c.mu.Unlock()
	if start {
		c.startWriter()
	}
}

// startWriter sees to it that what waits is written.
func (c *conn) startWriter() {
	if c.poll != nil {
		c.srv.flusher.add(c)
		return
	}
	go c.writeLoop(nil) // ends when the queue is empty; finish waits
}

// writeLoop writes b, if there is one, and everything that waits, in as few calls
// as possible, until nothing is left.
func (c *conn) writeLoop(b *batch) {
	for {
		if b == nil {
			if b = c.nextBatch(); b == nil {
				return
			}
		}
		c.writing.Store(c.srv.now())
		err := b.writeTo(c.nc)
		c.writing.Store(0)
		c.wrote(b, err)
		b = nil
	}
}

// nextBatch takes what waits. With nothing left the writer has ended.
func (c *conn) nextBatch() *batch {
	c.mu.Lock()
	b := c.queue
	c.queue = nil
	c.busy = b != nil
	closing := c.closing
	c.mu.Unlock()
	if b == nil {
		if closing {
			// Wake the reader: the goodbye is out.
			_ = c.nc.SetReadDeadline(time.Unix(1, 0))
			c.wake()
		}
		c.writers.Done()
	}
	return b
}

// wrote accounts for b, which is out, or will never be.
func (c *conn) wrote(b *batch, err error) {
	m := &c.srv.metrics
	m.Writes.Add(1)
	m.FramesOut.Add(int64(len(b.frames)))
	m.BytesOut.Add(int64(b.bytes))
	n := b.bytes
	putBatch(b)
	c.mu.Lock()
	c.bytes -= n
	c.makeRoom()
	c.mu.Unlock()
	if err != nil {
		c.abort()
	}
}

// close says goodbye behind the frames that wait, and takes no more. The reader
// ends once the close frame is out or CloseTimeout has passed.
func (c *conn) close(code ws.StatusCode, reason string) {
	c.goodbye(code, reason, "")
}

// disconnect ends a socket on the operator's behalf: each channel is told, then
// 1012, after which clients connect and join again.
func (c *conn) disconnect() {
	c.handleMu.Lock()
	for _, ch := range c.channels {
		if !ch.joined {
			continue
		}
		c.sendText(160+len(ch.topic), func(dst []byte) []byte {
			return phoenix.AppendSystem(dst, c.vsn, "", ch.topic, phoenix.System{
				Extension: extSystem, Status: phoenix.StatusOK, Message: textDisconnect,
			})
		})
	}
	c.handleMu.Unlock()
	c.close(closeRestart, "")
}

// slow closes a socket that does not read: what waits is dropped.
func (c *conn) slow(why string) {
	if c.goodbye(closeTryLater, string(sluice.CodeSlowReader), why) {
		c.srv.metrics.ClosedSlow.Add(1)
	}
}

// goodbye reports whether it was the first to close. With slow, what waits is
// dropped and finish logs why.
func (c *conn) goodbye(code ws.StatusCode, reason, slow string) bool {
	frame := controlFrame(ws.OpClose, ws.NewCloseFrameBody(code, reason))
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return false
	}
	c.closing, c.why = true, slow
	c.makeRoom()
	if slow != "" {
		c.dropQueue()
	}
	if c.queue == nil {
		c.queue = getBatch()
	}
	c.queue.add(frame)
	c.bytes += len(frame)
	start := !c.busy
	if start {
		c.busy = true
		c.writers.Add(1)
	}
	c.mu.Unlock()
	_ = c.nc.SetWriteDeadline(time.Now().Add(c.srv.cfg.CloseTimeout))
	if start {
		c.startWriter()
	}
	return true
}

// abort cuts the socket: nothing more is written or read.
func (c *conn) abort() {
	c.mu.Lock()
	c.closing = true
	c.dropQueue()
	c.makeRoom()
	c.mu.Unlock()
	_ = c.nc.Close()
	c.wake()
}

// dropQueue forgets what waits. Called with mu held.
func (c *conn) dropQueue() {
	if c.queue != nil {
		c.bytes -= c.queue.bytes
		putBatch(c.queue)
		c.queue = nil
	}
}

func (c *conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// sendText queues one message of this socket's version, made by fill.
func (c *conn) sendText(size int, fill func(dst []byte) []byte) {
	c.send(newFrame(fill(newPayload(size)), ws.OpText))
}

// reply answers a push of a channel or, with ch nil, of none.
func (c *conn) reply(joinRef, ref phoenix.Ref, topic, status string, response []byte) {
	c.sendText(96+len(topic)+len(response), func(dst []byte) []byte {
		return phoenix.AppendReply(dst, c.vsn, joinRef, ref, topic, status, response)
	})
}

// refuse answers a push with {"reason": reason}.
func (c *conn) refuse(joinRef, ref phoenix.Ref, topic, reason string) {
	c.sendText(96+len(topic)+len(reason), func(dst []byte) []byte {
		return phoenix.AppendReason(dst, c.vsn, joinRef, ref, topic, reason)
	})
}

// channel returns the channel joined, or being joined, on topic.
func (c *conn) channel(topic string) *channel {
	for _, ch := range c.channels {
		if ch.topic == topic {
			return ch
		}
	}
	return nil
}

func (c *conn) logAttrs(ch *channel) []any {
	attrs := []any{slog.Int64(sluice.LogConn, c.id), slog.String(sluice.LogRequest, c.request)}
	if ch != nil {
		attrs = append(attrs, slog.String(sluice.LogTopic, ch.key.Name), slog.String(sluice.LogRole, ch.claims.Role), slog.String("sub", ch.claims.Subject))
	}
	return attrs
}
