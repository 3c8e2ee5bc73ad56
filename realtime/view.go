package realtime

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/sluice-dev/sluice"
)

// View describes open sockets, the oldest first, and tells how many there are.
func (s *Server) View(ctx context.Context, only sluice.Only) (list []sluice.SocketView, total int) {
	s.mu.Lock()
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	slices.SortFunc(conns, func(a, b *conn) int { return cmp.Compare(a.id, b.id) })
	for _, c := range conns {
		if only.Conn != 0 && c.id != only.Conn {
			continue
		}
		v, subs := c.view(only.Subject)
		if only.Subject != "" && len(v.Channels) == 0 {
			continue
		}
		if total++; only.Limit > 0 && len(list) >= only.Limit {
			continue
		}
		// The catalog is read outside of the lock.
		for i, sub := range subs {
			if sub != nil {
				v.Channels[i].Subscriptions = sub.View(ctx, only.Brief)
			}
		}
		list = append(list, v)
	}
	return list, total
}

// view describes the socket, with the channels of a user or of everybody, and
// returns each one's part of the change feed.
func (c *conn) view(subject string) (v sluice.SocketView, subs []sluice.LiveSubscription) {
	v = sluice.SocketView{
		Conn: c.id, Request: c.request, Version: c.vsn.String(), KeyRole: c.key.Role, Refused: c.refusal.View(),
		Idle: time.Duration(c.srv.now() - c.lastRead.Load()).Seconds(), Channels: []sluice.ChannelView{},
	}
	c.mu.Lock()
	v.Waiting, v.Closing = c.bytes, c.closing
	c.mu.Unlock()
	c.handleMu.Lock()
	defer c.handleMu.Unlock()
	for _, ch := range c.channels {
		if subject != "" && ch.claims.Subject != subject {
			continue
		}
		w := sluice.ChannelView{
			Topic: ch.key.Name, Private: ch.key.Private, State: sluice.ChannelJoined, Role: ch.claims.Role, Subject: ch.claims.Subject, Expires: ch.claims.ExpiresAt,
		}
		switch {
		case !ch.joined:
			w.State = sluice.ChannelJoining
		case ch.expired:
			w.State = sluice.ChannelMuted
		}
		c.srv.hub.withTopic(ch, func(*topic) { w.Tracked = ch.tracked != nil })
		var sub sluice.LiveSubscription
		if x := ch.changes; x != nil {
			sub = x.sub
			x.mu.Lock()
			w.Sent = x.sentN
			x.mu.Unlock()
			w.Received = x.ackedN
		}
		v.Channels, subs = append(v.Channels, w), append(subs, sub)
	}
	return v, subs
}
