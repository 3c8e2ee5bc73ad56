// Package realtime serves /realtime/v1: the sockets, their channels, Broadcast,
// Presence and the delivery of Postgres Changes, and the HTTP broadcast
// endpoints. The gateway hands it requests whose API key is resolved already
// (sluice.Identity); the change feed and the bus between nodes are interfaces
// that cmd/sluice fills in.
//
// It does not decide who may see a row (package changes does) and does not know
// how messages look on the wire (package phoenix does).
//
// The way of a frame: accept.go takes the socket, conn.go reads it, dispatch.go
// switches on the event, join.go, broadcast.go, presence.go and token.go act,
// private.go and policy.go ask what is allowed on a private topic, hub.go reaches
// the other channels, flush.go writes. Rows of realtime.messages come in by
// database.go and leave the same way; replay.go reads older ones. limits.go and
// meter.go count and bound. On Linux an idle socket is only an entry in
// poll_linux.go's epoll. Locks nest in one order:
//
//	conn.handleMu → shard.mu → topic.mu → replay.mu, changes.mu → conn.mu
//
// Server.mu, flusher.mu, limits.mu and poller.mu are taken last, and nothing
// under them.
package realtime
