package realtime

import (
	"bytes"
	"context"
	"net"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// ServeConn serves a socket whose handshake has happened; it blocks.
func (s *Server) ServeConn(nc net.Conn, v phoenix.Version, id sluice.Identity) {
	if s.reserve() != nil {
		_ = nc.Close()
		return
	}
	c := newConn(s, nc, v, id, nil)
	s.register(c)
	s.serve(c)
}

// Topics returns how many topics have subscribers.
func (s *Server) Topics() (n int) {
	for i := range s.hub.shards {
		s.hub.shards[i].mu.RLock()
		n += len(s.hub.shards[i].topics)
		s.hub.shards[i].mu.RUnlock()
	}
	return n
}

// Rights asks what an identity may read, or write, on a private topic: broadcast
// and presence.
func (s *Server) Rights(ctx context.Context, claims sluice.Claims, topic string, write bool) (may [2]bool, err *sluice.Refusal) {
	a := s.policies.ask(ctx, &probe{claims: claims, topic: topic, write: write, of: []extension{broadcasts, presences}})
	return a.allowed, a.err
}

// Frames makes a message's frames by version, with encode when one is first needed.
func Frames(encode func(dst []byte, v phoenix.Version) ([]byte, bool, error)) func(v phoenix.Version) []byte {
	return framesFor(encode, 0).of
}

// RowBroadcast is the broadcast that a row of realtime.messages makes.
func RowBroadcast(r *sluice.Relation, row []sluice.Value, maxPayload int) (sluice.Broadcast, string) {
	p := placesOf(r)
	return p.broadcast(row, maxPayload)
}

// Inflate returns what a compressed message holds, at most limit bytes.
func Inflate(p []byte, limit int) ([]byte, error) {
	msg, err := inflate(p, limit)
	if err != nil {
		return nil, err
	}
	defer putMessage(msg)
	return bytes.Clone(*msg), nil
}

// FlusherRoom keeps n conns waiting for rounds of taking one and adding one, and
// returns the room that their queue has in the end.
func FlusherRoom(n, rounds int) int {
	var f flusher // starts no goroutine
	for range n {
		f.add(nil)
	}
	var one [1]*conn
	for range rounds {
		f.take(one[:])
		f.add(nil)
	}
	return cap(f.waiting)
}
