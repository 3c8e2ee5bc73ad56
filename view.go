package sluice

import (
	"context"
	"time"
)

// SocketView is one open socket, as `sluice why`, the doctor and the console show
// it. No view holds a key or a token.
type SocketView struct {
	Conn    int64  `json:"conn"`
	Request string `json:"request"` // id of the handshake, as in the log
	Version string `json:"vsn"`
	KeyRole string `json:"key_role"` // role of the API key
	// Refused is why every join is answered with an error; explain mode alone.
	Refused  *RefusalView  `json:"refused,omitempty"`
	Idle     float64       `json:"idle_seconds"` // since the client's last bytes
	Waiting  int           `json:"waiting_bytes"`
	Closing  bool          `json:"closing,omitempty"`
	Channels []ChannelView `json:"channels"`
}

// Only restricts a list of sockets.
type Only struct {
	// Subject is a user's id; empty is everybody.
	Subject string
	// Conn is the number of one socket; 0 is every one.
	Conn int64
	// Limit bounds the list. 0 is no bound.
	Limit int
	// Brief leaves out the tables of the subscriptions, for which the catalog is read.
	Brief bool
}

// States of a channel.
const (
	ChannelJoining = "joining"
	ChannelJoined  = "joined"
	ChannelMuted   = "muted" // its token has expired; a fresh one makes it joined
)

// ChannelView is one channel of a socket.
type ChannelView struct {
	Topic   string    `json:"topic"` // without the prefix realtime:
	Private bool      `json:"private"`
	State   string    `json:"state"`
	Role    string    `json:"role"`
	Subject string    `json:"sub,omitempty"`
	Expires time.Time `json:"expires,omitzero"` // of the token
	Tracked bool      `json:"tracked"`          // present
	// Sent and Received count the changes that were queued for the client and
	// those that its pongs have confirmed.
	Sent          uint64        `json:"sent"`
	Received      uint64        `json:"received"`
	Subscriptions []BindingView `json:"subscriptions,omitempty"`
}

// BindingView is one entry of a channel's postgres_changes.
type BindingView struct {
	Schema string `json:"schema"` // * is every one
	Table  string `json:"table"`
	Event  string `json:"event"`
	Filter string `json:"filter,omitempty"`
	// Tables are the published tables that it is for.
	Tables []TableView `json:"tables,omitempty"`
}

// TableView is what a role gets of a table.
type TableView struct {
	Table string `json:"table"` // schema.table
	Tier  int    `json:"tier"`  // of its policies for the role; `sluice explain policy` says why
	// Silent is why nothing of it can ever arrive.
	Silent *RefusalView `json:"silent,omitempty"`
}

// RefusalView is a refusal without its private cause.
type RefusalView struct {
	Code   Code   `json:"code"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// View returns the public part of r; nil of nil.
func (r *Refusal) View() *RefusalView {
	if r == nil {
		return nil
	}
	return &RefusalView{r.Code, r.Text, r.Remedy}
}

// Stage is a point on the way of a change to a client.
type Stage string

// Stages, in the order in which a change passes them.
const (
	StagePublication Stage = "publication" // the table, or the kind of change, is not published
	StageBinding     Stage = "binding"     // no entry of the channel is for it
	StageFilter      Stage = "filter"
	StageGrant       Stage = "grant"
	StagePolicy      Stage = "policy"
	StageBefore      Stage = "before"    // it committed before the subscription was live
	StageDecision    Stage = "decision"  // it waits for its decision
	StageSent        Stage = "sent"      // queued for the socket, and not confirmed
	StageDelivered   Stage = "delivered" // the client has confirmed it
	StageVisible     Stage = "visible"   // would be sent to a subscription that does not exist
)

// TraceRequest asks what becomes of changes of a table for one user.
type TraceRequest struct {
	Schema, Table string
	// Key is the row's primary key by column; with a key of one column its name
	// may be empty. No key asks for the latest changes.
	Key map[string]string
	// Subject is the user. Claims are used where no subscription of theirs is for
	// the table, and must then be theirs.
	Subject string
	Claims  Claims
	// Limit bounds the changes. Default 5.
	Limit int
}

// Trace is the answer.
type Trace struct {
	Table     string   `json:"table"`
	Published []string `json:"published"` // INSERT, UPDATE, DELETE; empty when the table is not
	Key       []string `json:"key"`       // columns of the primary key
	Tier      int      `json:"tier"`      // of the policies, for the role of the claims
	Handed    LSN      `json:"-"`         // the stream was read up to here
	Settled   LSN      `json:"-"`         // and decided up to here
	// Watched tells that changes are kept: somebody listens to the table, or did a
	// moment ago.
	Watched bool          `json:"watched"`
	Changes []TraceChange `json:"changes"` // the latest first
}

// TraceChange is one change, or the row as it is now.
type TraceChange struct {
	Kind     string            `json:"kind"` // INSERT, UPDATE, DELETE; ROW is the row as it is
	At       string            `json:"lsn,omitempty"`
	Time     time.Time         `json:"time,omitzero"`
	Key      map[string]string `json:"key"`
	Outcomes []TraceOutcome    `json:"outcomes"`
}

// TraceOutcome is how far a change has got towards one subscription.
type TraceOutcome struct {
	// Conn is the socket; 0 of a subscription that does not exist.
	Conn   int64  `json:"conn,omitempty"`
	Topic  string `json:"topic,omitempty"`
	Role   string `json:"role"`
	Stage  Stage  `json:"stage"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// Tracer is implemented by package changes.
type Tracer interface {
	// Trace runs the changes that are kept through match and policies once more,
	// for one user, and sends nothing. The error is of kind ErrNotFound when there
	// is no such table, ErrInvalid when the key does not fit it.
	Trace(ctx context.Context, r TraceRequest) (*Trace, error)
}
