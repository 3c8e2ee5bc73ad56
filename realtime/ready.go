package realtime

import (
	"context"
	"slices"

	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// Texts of the original for channels that ask for replication_ready.
const (
	textReady    = "Replication connection established"
	textNotReady = "Replication connection was not established in time"
)

// streaming reports whether rows of realtime.messages are being read now.
func (s *Server) streaming() bool {
	if s.cfg.Stream == nil {
		return false
	}
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	return s.cfg.Stream.Live(ended) == nil
}

// awaitReady tells the channel, once, when rows of realtime.messages are being
// read, or closes it when that takes too long. Called with handleMu held, after
// the join reply, when streaming has said no.
func (ch *channel) awaitReady() {
	c := ch.conn
	ctx, cancel := context.WithTimeout(c.srv.ctx, c.srv.cfg.ReadyTimeout)
	ch.stopReady = cancel
	c.work.Add(1)
	go func() { // ends with ctx at the latest; terminate cancels it, conn.finish waits
		defer c.work.Done()
		defer cancel()
		defer c.recovered()
		live := false
		if c.srv.cfg.Stream != nil {
			live = c.srv.cfg.Stream.Live(ctx) == nil
		} else {
			<-ctx.Done()
		}
		c.handleMu.Lock()
		defer c.handleMu.Unlock()
		switch {
		case c.finished || !slices.Contains(c.channels, ch) || c.srv.ctx.Err() != nil:
		case live:
			ch.system(extSystem, phoenix.StatusOK, textReady)
		default:
			c.shutdown(ch, extSystem, textNotReady)
		}
	}()
}
