package wal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/wal/pgoutput"
)

// session is what survives a connection: where handing on has got to. A new
// connection may repeat what came before; each lane skips what it has had.
type session struct {
	r *Reader
	// handed is the position up to which everything was handed on whole, flushed
	// the one that the server was told last. It never goes back: the server may
	// have removed what is before it.
	handed, flushed   sluice.LSN
	changes, messages part
	healed            int                            // times in a row that the publication was made again
	had               bool                           // the slot was streamed at least once
	server            pglogrepl.IdentifySystemResult // of the last connection; zero before the first
	over              bool                           // more is held back than MaxHeld allows
}

// Bounds of what waits between the stream and Handle. Past them the stream is
// read no further, messages included, and PostgreSQL keeps the rest.
const (
	maxWaiting      = 16384 // batches
	maxWaitingBytes = 32 << 20
)

// handOver is what the connection gives the handler: a batch, or a position
// that holds nothing for it.
type handOver struct {
	batch *sluice.ChangeBatch // nil for a position alone
	bytes int
	end   sluice.LSN // when not 0: everything before it has been handed on
}

// run streams over one connection until it fails or ctx ends. streaming is
// called once it does.
func (s *session) run(ctx context.Context, streaming func()) error {
	conn, err := s.r.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := s.recognize(ctx, conn); err != nil {
		return err
	}
	from, err := s.r.prepare(ctx, conn, s.had)
	if err != nil {
		return err
	}
	ref, err := currentXID(ctx, conn)
	if err != nil {
		return err
	}
	err = pglogrepl.StartReplication(ctx, conn, s.r.cfg.Slot, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication,
		PluginArgs: []string{
			"proto_version '1'", fmt.Sprintf(`publication_names '"%s"'`, s.r.cfg.Publication), "messages 'true'",
		},
	})
	if err != nil {
		return pg.Wrap(err, "start streaming slot %q", s.r.cfg.Slot)
	}
	// What was confirmed was handed on: a slot that begins behind that has lost
	// what is in between.
	gap := s.had && from > s.handed
	s.had, s.handed, s.flushed = true, max(s.handed, from), max(s.flushed, from)
	if s.r.cfg.Started != nil {
		s.r.cfg.Started(from, gap)
	}
	streaming()
	s.r.setStreaming(true, nil)
	s.r.log.Info("change stream is up")

	ctx, cancel := context.WithCancel(ctx)
	c := &connection{
		session: s, conn: conn,
		asm:  assembler{xidRef: ref, changes: lane{done: s.changes}, messages: lane{done: s.messages}},
		out:  make(chan handOver, maxWaiting),
		wake: make(chan struct{}, 1),
	}
	ended := make(chan struct{})
	go func() { // ends when out is closed or ctx ends; waited for below
		defer close(ended)
		c.handLoop(ctx)
	}()
	err = c.receiveLoop(ctx)
	cancel()
	close(c.out)
	<-ended
	c.goodbye(ctx)
	s.handed = max(s.handed, c.handed)
	return err
}

// currentXID returns a full transaction id of now. Begin carries only its lower
// half.
func currentXID(ctx context.Context, conn *pgconn.PgConn) (uint64, error) {
	rows, err := query(ctx, conn, "select pg_snapshot_xmax(pg_current_snapshot())::text")
	if err != nil {
		return 0, pg.Wrap(err, "ask for the current transaction id")
	}
	xid, err := strconv.ParseUint(string(rows[0][0]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read transaction id: %w", err)
	}
	return xid, nil
}

// connection is one stream.
type connection struct {
	// fixed
	session *session
	conn    *pgconn.PgConn
	out     chan handOver
	wake    chan struct{} // holds a token when handLoop has got on

	// owned by receiveLoop
	asm      assembler
	handed   sluice.LSN
	lastSent time.Time
	asked    int       // answers asked for since askedAt
	askedAt  time.Time // see closing

	// counted up by receiveLoop, which alone looks at them, down by handLoop
	waiting atomic.Int64 // hand-overs that are not done
	bytes   atomic.Int64 // and their size

	// written by handLoop
	reached atomic.Uint64 // position up to which everything was handed on
}

// receiveLoop reads the stream and tells the server the position, also while
// the handler is busy.
func (c *connection) receiveLoop(ctx context.Context) error {
	every := c.session.r.cfg.StatusEvery
	if err := c.status(ctx); err != nil {
		return err
	}
	// A context for every message costs more than reading it. The deadline stands
	// until the next status, or ctx moves it into the past; it is set before ctx is
	// looked at, so that the end is not missed.
	var deadline time.Time
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Conn().SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		c.confirm()
		if time.Since(c.lastSent) >= every {
			if err := c.status(ctx); err != nil {
				return err
			}
		}
		if next := c.lastSent.Add(every); next != deadline {
			deadline = next
			if err := c.conn.Conn().SetReadDeadline(deadline); err != nil {
				return fmt.Errorf("wait for the change stream: %w", err)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		msg, err := c.conn.ReceiveMessage(context.Background())
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case pgconn.Timeout(err):
			continue
		case err != nil:
			return pg.Wrap(err, "read the change stream")
		}
		switch m := msg.(type) {
		case *pgproto3.CopyData:
			if err := c.copyData(ctx, m.Data); err != nil {
				return err
			}
		case *pgproto3.ErrorResponse:
			return pg.Wrap(pgconn.ErrorResponseToPgError(m), "stream slot %q", c.session.r.cfg.Slot)
		}
	}
}

func (c *connection) copyData(ctx context.Context, data []byte) error {
	if len(data) == 0 {
		return errors.New("empty message in the change stream")
	}
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return fmt.Errorf("read keepalive: %w", err)
		}
		// Between transactions the server's position holds nothing for us.
		if !c.asm.open() {
			if err := c.hand(ctx, handOver{end: sluice.LSN(k.ServerWALEnd)}); err != nil {
				return err
			}
		}
		c.server(sluice.LSN(k.ServerWALEnd))
		if k.ReplyRequested {
			c.confirm()
			if c.closing(sluice.LSN(k.ServerWALEnd)) {
				return errServerStops
			}
			return c.status(ctx)
		}
	case pglogrepl.XLogDataByteID:
		// The buffer is used again for the next message; the batch outlives it.
		x, err := pglogrepl.ParseXLogData(append([]byte(nil), data[1:]...))
		if err != nil {
			return fmt.Errorf("read WAL data: %w", err)
		}
		c.server(sluice.LSN(x.ServerWALEnd))
		m, err := pgoutput.Decode(x.WALData)
		if err != nil {
			return err
		}
		out, err := c.asm.add(m)
		if err != nil {
			return err
		}
		if out.messages != nil {
			out.messages.Sent = x.ServerTime.UTC()
			c.message(ctx, out.messages)
		}
		if out.changes != nil {
			out.changes.Sent = x.ServerTime.UTC()
		}
		if out.changes != nil || out.end != 0 {
			return c.hand(ctx, handOver{batch: out.changes, bytes: out.bytes, end: out.end})
		}
	}
	return nil
}

// message hands rows of realtime.messages on, ahead of the changes that wait.
func (c *connection) message(ctx context.Context, b *sluice.ChangeBatch) {
	r := c.session.r
	if r.cfg.Messages != nil {
		if err := r.cfg.Messages(ctx, *b); err != nil && ctx.Err() == nil {
			r.log.Error("messages were refused", sluice.LogLSN, b.Commit.String(), sluice.LogError, err)
		}
	}
	c.session.messages = after(b)
}

// errHandlerAway ends a connection whose handler waits for the database.
var errHandlerAway = errors.New("the handler waits for the database, and there is no room for more")

// stallPoll is how often a reader without room looks whether its handler waits
// for the database.
const stallPoll = time.Second

// hand passes work on. While the handler is too far behind it goes on answering
// the server, and reads nothing more. But a handler that waits for the database
// may wait for one that is stopping, which does not end before it has sent
// everything: then the reader hangs up, and the slot keeps the rest.
func (c *connection) hand(ctx context.Context, h handOver) error {
	if h.batch == nil && c.waiting.Load() == 0 {
		c.reach(h.end)
		return nil
	}
	for {
		if n := c.bytes.Load(); n <= 0 || n+int64(h.bytes) <= maxWaitingBytes {
			select {
			case c.out <- h:
				c.waiting.Add(1)
				c.bytes.Add(int64(h.bytes))
				return nil
			default:
			}
		}
		cfg := &c.session.r.cfg
		select {
		case <-c.wake:
		case <-time.After(min(stallPoll, cfg.StatusEvery)):
			if cfg.Away != nil && cfg.Away() {
				return errHandlerAway
			}
			c.confirm()
			if time.Since(c.lastSent) >= cfg.StatusEvery {
				if err := c.status(ctx); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// handLoop gives the batches to Handle, in order.
func (c *connection) handLoop(ctx context.Context) {
	s := c.session
	for h := range c.out {
		if ctx.Err() != nil {
			return
		}
		if h.batch != nil {
			if err := s.r.cfg.Handle(ctx, *h.batch); err != nil {
				if ctx.Err() != nil {
					return
				}
				s.r.log.Error("changes were refused", sluice.LogLSN, h.batch.Commit.String(), sluice.LogError, err)
			}
			s.healed = 0
			s.changes = after(h.batch)
		}
		if h.end != 0 {
			c.reached.Store(uint64(h.end))
		}
		c.bytes.Add(-int64(h.bytes))
		c.waiting.Add(-1)
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// confirm takes in what the handler has done.
func (c *connection) confirm() { c.reach(sluice.LSN(c.reached.Load())) }

// reach notes that everything before end was handed on.
func (c *connection) reach(end sluice.LSN) {
	if end > c.handed {
		c.handed = end
		r := c.session.r
		r.mu.Lock()
		r.state.Handed = end
		r.mu.Unlock()
	}
}

// server notes the server's own position.
func (c *connection) server(at sluice.LSN) {
	r := c.session.r
	r.mu.Lock()
	r.state.Server = max(r.state.Server, at)
	r.mu.Unlock()
}

// flush returns the position that the server may be told: what was handed on, as
// far as nobody may ask for it again.
func (c *connection) flush() sluice.LSN {
	s := c.session
	r := s.r
	at := c.handed
	if r.cfg.Floor != nil {
		if floor := r.cfg.Floor(); floor != 0 {
			at = min(at, floor)
		}
	}
	over := c.handed > at && int64(c.handed-at) > r.cfg.MaxHeld
	if over {
		at = c.handed - sluice.LSN(r.cfg.MaxHeld)
	}
	if over && !s.over {
		r.mu.Lock()
		r.state.LetGo++
		r.mu.Unlock()
		r.log.Error("more WAL is held back for clients that may come back than the budget allows; letting go",
			"budget", r.cfg.MaxHeld, sluice.LogLSN, at.String())
	}
	s.over = over
	s.flushed = max(s.flushed, at)
	r.mu.Lock()
	r.state.Confirmed = s.flushed
	r.mu.Unlock()
	return s.flushed
}

// errServerStops ends a connection that a stopping server waits for.
var errServerStops = errors.New("the server asks for everything to be confirmed, as it does before it stops")

// A stopping server does not end before its receivers have confirmed everything,
// and asks again as soon as it is answered: so many times within so long.
const (
	askedTooOften = 5
	askedWithin   = time.Second
)

// closing reports whether the server waits for a confirmation of end that it will
// not get now, because a position is held, or the handler is behind and perhaps
// waits for this very server: hanging up lets it stop, and the slot keeps the
// position.
func (c *connection) closing(end sluice.LSN) bool {
	now := time.Now()
	if now.Sub(c.askedAt) > askedWithin {
		c.askedAt, c.asked = now, 0
	}
	c.asked++
	return c.asked > askedTooOften && c.flush() < end
}

// status tells the server the position.
func (c *connection) status(ctx context.Context) error {
	c.lastSent = time.Now()
	if c.handed == 0 {
		c.handed = c.session.handed
	}
	at := c.flush()
	err := pglogrepl.SendStandbyStatusUpdate(ctx, c.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: pglogrepl.LSN(max(c.handed, at)), WALFlushPosition: pglogrepl.LSN(at), WALApplyPosition: pglogrepl.LSN(at),
	})
	return pg.Wrap(err, "confirm position %s", at)
}

// goodbye confirms what was handed on before an orderly end.
func (c *connection) goodbye(ctx context.Context) {
	c.confirm()
	if c.conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = c.status(ctx) // the next start repeats what was not confirmed
}
