// Package cluster carries messages between the nodes of one project. Local is
// the cluster of one node. It knows nothing of sockets or slots: who handles
// what arrives is given at construction by cmd/sluice.
package cluster

import (
	"context"

	"github.com/sluice-dev/sluice"
)

// Handlers receive what is published, on every node. They are called in the
// order of publication by one publisher, must not block on the network, and
// must not keep the memory of what they are given.
type Handlers struct {
	// Broadcast delivers to the node's sockets.
	Broadcast func(b *sluice.Broadcast)
	// Messages delivers rows inserted into realtime.messages (Broadcast from
	// Database) to the node's sockets. It must not block, nor wait for Changes.
	Messages func(b sluice.ChangeBatch)
	// Changes takes a batch of the log. It may block, which holds the stream
	// up, until ctx ends.
	Changes func(ctx context.Context, b sluice.ChangeBatch) error
}

// Local is the bus of a single node: publishing calls the handler.
type Local struct{ handlers Handlers }

// NewLocal returns the bus of one node. A nil handler drops what it would get.
func NewLocal(h Handlers) *Local { return &Local{h} }

// PublishBroadcast delivers b on this node before it returns.
func (l *Local) PublishBroadcast(_ context.Context, b *sluice.Broadcast) error {
	if l.handlers.Broadcast != nil {
		l.handlers.Broadcast(b)
	}
	return nil
}

// PublishMessages delivers rows of realtime.messages on this node before it
// returns. They cross in batches as bounded as those of changes, but on a way of
// their own, so that a node that is behind with changes is not behind with them.
// Batches of one caller arrive everywhere in the order of the calls.
func (l *Local) PublishMessages(_ context.Context, b sluice.ChangeBatch) error {
	if l.handlers.Messages != nil {
		l.handlers.Messages(b)
	}
	return nil
}

// PublishChanges hands a batch to this node and returns when it has been taken.
// Batches of one caller arrive everywhere in the order of the calls.
func (l *Local) PublishChanges(ctx context.Context, b sluice.ChangeBatch) error {
	if l.handlers.Changes == nil {
		return nil
	}
	return l.handlers.Changes(ctx, b)
}
