package wal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/wal/pgoutput"
)

// session is what survives a connection: where handing on has got to.
type session struct {
	r *Reader
	// handed is the commit of the last transaction that was handed on whole. A
	// new connection may repeat it and what came before; it is skipped.
	handed  sluice.LSN
	partial part
	healed  int  // times in a row that the publication was made again
	had     bool // the slot was streamed at least once
}

// queued bounds the batches between the connection and Handle.
const queued = 8

// handOver is what the connection gives the handler: a batch, or a position
// that holds nothing for it.
type handOver struct {
	batch sluice.ChangeBatch
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
	if err := s.r.prepare(ctx, conn, s.had); err != nil {
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
	s.had = true
	streaming()
	s.r.setStreaming(true, nil)
	s.r.log.Info("change stream is up")

	ctx, cancel := context.WithCancel(ctx)
	c := &connection{
		session: s, conn: conn, asm: assembler{xidRef: ref, skip: s.handed, partial: s.partial},
		out: make(chan handOver, queued), done: make(chan sluice.LSN, queued+2),
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
	s.handed = max(s.handed, c.confirmed)
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

// connection is one stream. receiveLoop owns everything but out and done.
type connection struct {
	session *session
	conn    *pgconn.PgConn
	asm     assembler
	out     chan handOver
	done    chan sluice.LSN // positions that were handed on, in order

	confirmed sluice.LSN
	pending   int // hand-overs that are not in done yet
	lastSent  time.Time
}

// receiveLoop reads the stream and tells the server the position, also while
// the handler is busy.
func (c *connection) receiveLoop(ctx context.Context) error {
	every := c.session.r.cfg.StatusEvery
	if err := c.status(ctx); err != nil {
		return err
	}
	for {
		c.confirm()
		if time.Since(c.lastSent) >= every {
			if err := c.status(ctx); err != nil {
				return err
			}
		}
		wait, cancel := context.WithDeadline(ctx, c.lastSent.Add(every))
		msg, err := c.conn.ReceiveMessage(wait)
		cancel()
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
		if k.ReplyRequested {
			c.confirm()
			return c.status(ctx)
		}
	case pglogrepl.XLogDataByteID:
		const header = 24 // start, end and time of the server
		if len(data) < 1+header {
			return fmt.Errorf("read WAL data: %w", pgoutput.ErrTruncated)
		}
		// The buffer is used again for the next message; the batch outlives it.
		m, err := pgoutput.Decode(append([]byte(nil), data[1+header:]...))
		if err != nil {
			return err
		}
		batch, end, err := c.asm.add(m)
		if err != nil {
			return err
		}
		if batch != nil {
			if err := c.hand(ctx, handOver{batch: *batch, end: end}); err != nil {
				return err
			}
		} else if end != 0 {
			return c.hand(ctx, handOver{end: end})
		}
	}
	return nil
}

// hand passes work on. While the handler is behind it goes on answering the
// server, and reads nothing more.
func (c *connection) hand(ctx context.Context, h handOver) error {
	if h.batch.Changes == nil && c.pending == 0 {
		c.confirmed = max(c.confirmed, h.end)
		return nil
	}
	tick := time.NewTicker(c.session.r.cfg.StatusEvery)
	defer tick.Stop()
	for {
		select {
		case c.out <- h:
			c.pending++
			return nil
		case end := <-c.done:
			c.handled(end)
		case <-tick.C:
			if err := c.status(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// handLoop gives the batches to Handle, in order.
func (c *connection) handLoop(ctx context.Context) {
	for h := range c.out {
		if ctx.Err() != nil {
			return
		}
		if h.batch.Changes != nil {
			if err := c.session.r.cfg.Handle(ctx, h.batch); err != nil {
				if ctx.Err() != nil {
					return
				}
				c.session.r.log.Error("changes were refused", sluice.LogLSN, h.batch.Commit.String(), sluice.LogError, err)
			}
			c.session.healed = 0
			c.session.partial = part{h.batch.Commit, h.batch.First + len(h.batch.Changes)}
		}
		select {
		case c.done <- h.end:
		case <-ctx.Done():
			// receiveLoop may be gone; run reads what is left in done.
			select {
			case c.done <- h.end:
			default:
			}
		}
	}
}

// confirm takes in what the handler has done.
func (c *connection) confirm() {
	for {
		select {
		case end := <-c.done:
			c.handled(end)
		default:
			return
		}
	}
}

func (c *connection) handled(end sluice.LSN) {
	c.pending--
	if end > c.confirmed {
		c.confirmed = end
		r := c.session.r
		r.mu.Lock()
		r.state.Confirmed = end
		r.mu.Unlock()
	}
}

// status tells the server the position.
func (c *connection) status(ctx context.Context) error {
	c.lastSent = time.Now()
	if c.confirmed == 0 {
		c.confirmed = c.session.handed
	}
	lsn := pglogrepl.LSN(c.confirmed)
	err := pglogrepl.SendStandbyStatusUpdate(ctx, c.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: lsn, WALFlushPosition: lsn, WALApplyPosition: lsn,
	})
	return pg.Wrap(err, "confirm position %s", c.confirmed)
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
