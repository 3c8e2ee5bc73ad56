package sluice

import (
	"context"
	"encoding/json"
)

// ChangeBinding is one entry of a join's config.postgres_changes.
type ChangeBinding struct {
	// ID is chosen by realtime and echoed in the join reply; it is never 0 and
	// unique among different bindings of one channel.
	ID int64
	// Params is the client's object, exactly as sent.
	Params json.RawMessage
}

// ChangeSubscription is what one channel asks of the change feed. All its
// bindings become active together or not at all.
type ChangeSubscription struct {
	Claims   Claims
	Topic    string // sub-topic, for logs
	Bindings []ChangeBinding
	// Deliver is called for every change that at least one binding matches and
	// the claims may see, in commit order per table, from the feed's own
	// goroutines. It must not block and must not keep the slices' memory from
	// other receivers: ChangeEvent is shared and read-only.
	Deliver func(ChangeEvent)

	// Notify, if not nil, is told what happens to the subscription while it is
	// live: a Refusal says that changes were given up, that none can come for now,
	// or what became of those that were missed (CodeChangesResumed, CodeChangesGap);
	// nil says that they can come again. It is called as Deliver is, or before
	// Subscribe returns, and must not block either.
	Notify func(*Refusal)

	// Resume, when not nil, takes up where an earlier subscription of the same
	// client ended, and lets a later one do the same. Only claims with a Subject
	// are resumed.
	Resume *Resume
}

// Resume tells a client that goes on from one that begins anew.
type Resume struct {
	// Conn is the number of the socket: what the same socket held is its own.
	Conn int64
	// First is the number of the first message on the socket, 0 without one. A
	// client that goes on counts on: it is greater than every number that the
	// earlier socket saw.
	First uint64
	// From, when not 0, is a position that the client names itself: what
	// committed before it, and of the transaction that committed there the
	// changes before Index, it has.
	From  LSN
	Index int
	// Seen are changes that the client has behind From; see LiveSubscription.
	Seen []Seen
	// Room waits until the receiver can take more, while changes that were
	// missed are sent. Deliver does not block, so that this has to.
	Room func(ctx context.Context) error
}

// ChangeEvent is one delivery: one message per channel and change.
type ChangeEvent struct {
	// IDs are the channel's bindings that matched.
	IDs []int64
	// Type is INSERT, UPDATE or DELETE (legacy joins use it as the event name).
	Type string
	// Data is the JSON text of the message's data member, encoded once and
	// shared by all receivers. Read-only.
	Data json.RawMessage
	// At is where the change's transaction committed, Index its place there.
	At    LSN
	Index int
	Table uint32 // oid
}

// Seen is the last change of a table that was delivered.
type Seen struct {
	Table uint32
	At    LSN
	Index int
}

// ChangeFeed is implemented by package changes and called by package realtime.
type ChangeFeed interface {
	// Subscribe makes the bindings live and returns: every row committed after
	// it has returned is delivered. notices name subscriptions that can never
	// receive anything although they are valid (no policy for the role and
	// the like). err is a *SubscribeError when the client's parameters are at
	// fault, a *Refusal (CodeUnableToConnect, CodeInitializing) when the
	// database is.
	Subscribe(ctx context.Context, s ChangeSubscription) (sub LiveSubscription, notices []*Refusal, err error)
}

// LiveSubscription is an active subscription.
type LiveSubscription interface {
	// SetClaims replaces the identity for every change decided from now on.
	// The error is as of Subscribe.
	SetClaims(ctx context.Context, c Claims) (notices []*Refusal, err error)
	// Position is up to where everything was delivered: each change that the
	// subscription may see and that committed before it.
	Position() LSN
	// Seen is what was delivered behind Position: the changes of a table come in
	// order, and one table may be ahead of another.
	Seen() []Seen
	// Confirm says that the client has received everything that committed
	// before at, and ref as the highest number of its messages.
	Confirm(at LSN, ref uint64)
	// View describes the entries; unless brief, with the tables that each is for, for
	// which it reads the catalog.
	View(ctx context.Context, brief bool) []BindingView
	// Hold ends delivery as Close does, and keeps what was confirmed for a
	// client that comes back.
	Hold()
	// Close ends delivery. Neither Deliver nor Notify is called after Close has
	// returned.
	// It does not block on I/O and may be called more than once.
	Close()
}

// SubscribeError is an error in the parameters of a subscription; Message is
// the text of the original's system message. It is not retried.
type SubscribeError struct {
	Message string
	Refusal *Refusal // the code and remedy that go with it; may be nil
}

func (e *SubscribeError) Error() string { return e.Message }
