package realtime

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// Stock clients acknowledge no change. So the server pings behind the changes that
// it has queued, and the pong says that they have arrived: sockets keep order. What
// a channel was never sent needs no pong; an idle socket is left alone.

// countRef takes the number of a message. Stock clients count over their whole life,
// and from the beginning again after a reload.
func (c *conn) countRef(ref phoenix.Ref) {
	n, err := strconv.ParseUint(strings.Trim(string(ref), `"`), 10, 63)
	if err != nil {
		return
	}
	if c.firstRef == 0 {
		c.firstRef = n
	}
	c.topRef = max(c.topRef, n)
}

// resumption describes a client that may go on where an earlier channel of its ended.
// A channel that was muted goes on where delivery stopped: its socket lives.
func (ch *channel) resumption() *sluice.Resume {
	if ch.changes == nil {
		return nil
	}
	x := ch.changes
	r := &sluice.Resume{Conn: ch.conn.id, First: ch.conn.firstRef, From: x.from, Index: x.index, Room: ch.room}
	if x.mutedAt != 0 {
		r.From, r.Index, r.Seen = x.mutedAt, 0, x.seen
	}
	return r
}

// confirmChanges moves the positions of the channels on, as far as that is known,
// and pings when something was sent that no pong has confirmed. Called with handleMu
// held.
func (c *conn) confirmChanges() {
	ask := false
	for _, ch := range c.channels {
		if ch.changes != nil && ch.changes.sub != nil {
			ask = ch.confirm() || ask
		}
	}
	if !ask || c.unponged {
		return
	}
	c.pinged++
	for _, ch := range c.channels {
		if x := ch.changes; x != nil && x.sub != nil && x.pingedAt != 0 {
			x.pinged = c.pinged
		}
	}
	c.unponged = true
	c.send(controlFrame(ws.OpPing, binary.BigEndian.AppendUint32(nil, c.pinged)))
}

// confirm hands the channel's position to the feed and reports whether a ping could
// move it on. What was delivered before the position was read is in the queue by now.
func (ch *channel) confirm() (ask bool) {
	c, x := ch.conn, ch.changes
	at := x.sub.Position()
	x.mu.Lock()
	sent, waiting := x.sentN, len(x.waiting) > 0
	x.mu.Unlock()
	switch {
	case waiting: // for the join reply
	case sent == x.ackedN:
		x.confirmed = max(x.confirmed, at)
	default:
		ask = true
		if !c.unponged {
			x.pingedAt, x.pingedN = at, sent
		}
	}
	x.sub.Confirm(x.confirmed, c.topRef)
	return ask
}

// pong takes the answer to a ping of confirmChanges.
func (c *conn) pong(payload []byte) {
	if len(payload) != 4 {
		return
	}
	c.handleMu.Lock()
	defer c.handleMu.Unlock()
	if n := binary.BigEndian.Uint32(payload); !c.unponged || n != c.pinged {
		return
	}
	c.unponged = false
	for _, ch := range c.channels {
		if x := ch.changes; x != nil && x.pinged == c.pinged && x.pingedAt != 0 {
			x.confirmed, x.ackedN = max(x.confirmed, x.pingedAt), max(x.ackedN, x.pingedN)
			x.pingedAt = 0
			if x.sub != nil {
				x.sub.Confirm(x.confirmed, c.topRef)
			}
		}
	}
}

// room waits until the join reply is out and half of the socket's queue is free. The
// feed asks before it sends what was missed.
func (ch *channel) room(ctx context.Context) error {
	c, x := ch.conn, ch.changes
	for {
		x.mu.Lock()
		live := x.live
		x.mu.Unlock()
		c.mu.Lock()
		if c.closing {
			c.mu.Unlock()
			return errClosing
		}
		if live && c.hasRoom() {
			c.mu.Unlock()
			return nil
		}
		if c.roomy == nil {
			c.roomy = make(chan struct{})
		}
		roomy := c.roomy
		c.mu.Unlock()
		x.mu.Lock()
		missed := !live && x.live // it came in between
		x.mu.Unlock()
		if missed {
			continue
		}
		select {
		case <-roomy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hasRoom is called with mu held.
func (c *conn) hasRoom() bool {
	frames := 0
	if c.queue != nil {
		frames = len(c.queue.frames)
	}
	return c.bytes <= c.srv.cfg.QueueBytes/2 && frames <= c.srv.cfg.QueueFrames/2
}

// makeRoom wakes those who wait for room, if there is some. Called with mu held.
func (c *conn) makeRoom() {
	if c.roomy != nil && (c.closing || c.hasRoom()) {
		close(c.roomy)
		c.roomy = nil
	}
}

// gotRoom wakes those who wait for the join reply.
func (c *conn) gotRoom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.makeRoom()
}
