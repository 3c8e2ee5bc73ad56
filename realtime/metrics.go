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
	Panics      atomic.Int64

	PolicyChecks  atomic.Int64 // probes of private channels, and of HTTP broadcasts to them
	PolicyFlushes atomic.Int64 // flushes that asked them; PolicyChecks/PolicyFlushes is how many share one

	ClosedIdle     atomic.Int64
	ClosedEmpty    atomic.Int64 // without a channel for too long
	ClosedProtocol atomic.Int64 // 1002 and 1009
	ClosedSlow     atomic.Int64 // queue full or write timeout
	ClosedHeld     atomic.Int64 // too much sent while a join was under way

	DroppedMalformed   atomic.Int64 // frames that could not be read
	DroppedOversize    atomic.Int64 // broadcasts over the payload limit
	DroppedUnencodable atomic.Int64 // deliveries that have no form in the receiver's version
	DroppedMuted       atomic.Int64 // writes and deliveries of channels with an expired token
	DroppedDenied      atomic.Int64 // broadcasts to private topics that policies do not allow
	DroppedUnknown     atomic.Int64 // events without a meaning
	DroppedChanges     atomic.Int64 // changes that could not wait for a join reply; the channel fails
}
