package realtime

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// channel is one joined topic on one socket.
type channel struct {
	// fixed after join
	conn        *conn
	id          uint64
	topic       string // as joined, with its prefix
	key         sluice.Topic
	joinRef     phoenix.Ref
	ack         bool
	self        bool
	presenceKey string  // empty until the server has to choose one
	undecided   bool    // the join carried no token; see conn.sendBack
	replay      *replay // nil without a replay
	wantsReady  bool    // asked for replication_ready

	// guarded by conn.handleMu
	claims     sluice.Claims
	token      tokenHash
	expires    int64  // Unix nanoseconds, 0 never
	expired    bool   // muted until a fresh token comes
	retained   []byte // what was tracked when the channel was muted
	joined     bool
	presenceOn bool
	calls      int   // presence pushes within the window
	windowEnd  int64 // server time
	work       *work
	stopReady  context.CancelFunc // ends awaitReady; nil when it never ran
	changes    *changes           // nil without postgres_changes
	rights     rights             // of a private channel
	askAgain   int64              // server time before which no write is asked about

	condemned atomic.Bool // over the limit on events: receives nothing more

	// guarded by the topic's mu
	index   int   // place among the topic's subscribers, -1 when not subscribed
	held    bool  // its join reply is not out
	muted   bool  // receives nothing
	deaf    bool  // private, may not read broadcasts
	blind   bool  // private, may not read presence
	tracked *meta // nil when not tracked
}

// work is a slow step of a channel, for which its messages wait.
type work struct {
	cancel    context.CancelFunc
	needed    bool // also by what came before a leave or another join
	held      []phoenix.Message
	heldBytes int
}

// changes is a channel's part of the change feed.
type changes struct {
	// fixed after join
	raw      []json.RawMessage
	ids      []int64
	bindings []sluice.ChangeBinding
	legacy   bool
	places   bool       // the client wants to know where changes committed
	from     sluice.LSN // and says from where on it wants them, 0 when not
	index    int

	// guarded by conn.handleMu
	sub       sluice.LiveSubscription // nil while not live
	left      bool                    // the client left while it was joining
	mutedAt   sluice.LSN              // where delivery stopped when it was muted, else 0
	seen      []sluice.Seen           // what was delivered behind mutedAt
	confirmed sluice.LSN              // the client has what committed before
	pinged    uint32                  // the last ping that it took part in
	pingedAt  sluice.LSN              // confirmed once that is answered
	pingedN   uint64                  // and that many deliveries
	ackedN    uint64                  // deliveries that the client has

	// guarded by mu
	mu      sync.Mutex
	live    bool   // the join reply is out
	sentN   uint64 // deliveries queued
	tripped uint32 // the last time that changes reached their limit and the client was told
	failed  bool
	waiting [][]byte // for the join reply
	bytes   int
}

// start runs a slow step outside of the lock: slow without it, then done with
// it, then the messages that came meanwhile. done is not called when the
// socket has ended or the channel was dropped; cleanup is called instead.
func (ch *channel) start(slow func(ctx context.Context), done, cleanup func()) {
	c := ch.conn
	ctx, cancel := context.WithTimeout(c.srv.ctx, c.srv.cfg.JoinTimeout)
	w := &work{cancel: cancel}
	ch.work = w
	c.work.Add(1)
	go func() { // ends with slow, which ctx bounds; conn.finish waits
		defer c.work.Done()
		defer cancel()
		defer c.recovered()
		slow(ctx)
		c.handleMu.Lock()
		defer c.handleMu.Unlock()
		ch.work = nil
		if c.finished || !slices.Contains(c.channels, ch) {
			cleanup()
		} else {
			done()
		}
		c.srv.metrics.Held.Add(-int64(len(w.held)))
		for i := range w.held {
			c.handle(&w.held[i])
		}
	}()
}

// terminate takes the channel out of everything that delivers to it. Called
// with handleMu held; nothing reaches the channel after it has returned. With hold
// its client may come back for the changes that it missed.
func (ch *channel) terminate(hold bool) {
	if ch.work != nil {
		ch.work.cancel()
	}
	if ch.stopReady != nil {
		ch.stopReady()
	}
	if ch.joined {
		ch.joined = false
		ch.conn.srv.metrics.Channels.Add(-1)
	}
	ch.conn.srv.hub.unsubscribe(ch) // a channel may be held before it is joined
	ch.closeChanges(hold)
}

// closeChanges ends the channel's part of the change feed.
func (ch *channel) closeChanges(hold bool) {
	x := ch.changes
	if x == nil {
		return
	}
	x.left = x.left || !hold
	if x.sub == nil {
		return
	}
	ch.confirm()
	if hold {
		x.sub.Hold()
	} else {
		x.sub.Close()
	}
	x.sub = nil
}

// sendClose sends phx_close for the join that joinRef names.
func (ch *channel) sendClose(joinRef phoenix.Ref) {
	ch.conn.sendText(64+len(ch.topic), func(dst []byte) []byte {
		return phoenix.AppendClose(dst, ch.conn.vsn, joinRef, ch.topic)
	})
}

// system sends a system message of this channel.
func (ch *channel) system(extension, status, text string) {
	ch.conn.send(ch.systemFrame(extension, status, text))
}

func (ch *channel) systemFrame(extension, status, text string) []byte {
	return newFrame(phoenix.AppendSystem(newPayload(160+2*len(ch.topic)+len(text)), ch.conn.vsn, ch.joinRef, ch.topic, phoenix.System{
		Extension: extension, Status: status, Message: text, Channel: ch.key.Name,
	}), opText)
}

// reply answers a push of this channel.
func (ch *channel) reply(ref phoenix.Ref, status string, response []byte) {
	ch.conn.reply(ch.joinRef, ref, ch.topic, status, response)
}

// Extensions of system messages.
const (
	extSystem  = "system"
	extChanges = "postgres_changes"
)

// textDisconnect is the original's word to every channel before an operator's
// disconnect.
const textDisconnect = "Server requested disconnect"
