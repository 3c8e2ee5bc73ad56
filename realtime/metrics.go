package realtime

import "sync/atomic"

// Metrics are the server's counters; they only grow, except those named as
// gauges.
type Metrics struct {
	Conns      atomic.Int64 // gauge: open sockets
	Channels   atomic.Int64 // gauge: joined channels
	QueueBytes atomic.Int64 // gauge: bytes that wait for readers

	Accepted    atomic.Int64
	Refused     atomic.Int64 // handshakes refused here
	Joins       atomic.Int64
	JoinsFailed atomic.Int64
	FramesIn    atomic.Int64
	FramesOut   atomic.Int64 // frames put into a queue
	Writes      atomic.Int64 // writes to sockets; FramesOut/Writes is how many frames share one
	Broadcasts  atomic.Int64
	Changes     atomic.Int64 // change deliveries
	Rows        atomic.Int64 // rows of realtime.messages that were broadcast
	Replayed    atomic.Int64 // rows that were replayed to a channel
	Panics      atomic.Int64

	ClosedIdle     atomic.Int64
	ClosedProtocol atomic.Int64 // 1002 and 1009
	ClosedSlow     atomic.Int64 // queue full or write timeout
	ClosedHeld     atomic.Int64 // too much sent while a join was under way

	DroppedMalformed   atomic.Int64 // frames that could not be read
	DroppedOversize    atomic.Int64 // broadcasts over the payload limit
	DroppedUnencodable atomic.Int64 // deliveries that have no form in the receiver's version
	DroppedMuted       atomic.Int64 // writes and deliveries of channels with an expired token
	DroppedUnknown     atomic.Int64 // events without a meaning
	DroppedRows        atomic.Int64 // rows of realtime.messages that cannot be broadcast
	DroppedStale       atomic.Int64 // rows of realtime.messages that were left to replay after a downtime
	DroppedReplayed    atomic.Int64 // deliveries of rows that the channel had by replay
	DroppedChanges     atomic.Int64 // changes that could not wait for a join reply; the channel fails
}
