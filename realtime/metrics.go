package realtime

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the server's counters; they only grow, except those named as
// gauges. As a prometheus.Collector they are registered by main.
type Metrics struct {
	Conns      atomic.Int64 // gauge: open sockets
	Channels   atomic.Int64 // gauge: joined channels
	QueueBytes atomic.Int64 // gauge: bytes that wait for readers
	Held       atomic.Int64 // gauge: messages that wait for their channel's join or refresh

	Accepted     atomic.Int64
	Refused      atomic.Int64 // handshakes and HTTP broadcasts refused here
	RefusedRate  atomic.Int64 // HTTP broadcasts refused for a rate
	Joins        atomic.Int64
	JoinsFailed  atomic.Int64
	FramesIn     atomic.Int64
	BytesIn      atomic.Int64 // payloads of messages read
	FramesOut    atomic.Int64 // frames written
	BytesOut     atomic.Int64 // bytes of those frames
	Writes       atomic.Int64 // writes to sockets; FramesOut/Writes is how many frames share one
	Broadcasts   atomic.Int64
	Delivered    atomic.Int64 // broadcasts put into a socket's queue
	Changes      atomic.Int64 // change deliveries
	HTTPRequests atomic.Int64 // to the project's routes
	Rows         atomic.Int64 // rows of realtime.messages that were broadcast
	Replayed     atomic.Int64 // rows that were replayed to a channel
	Panics       atomic.Int64

	PolicyChecks  atomic.Int64 // probes of private channels, and of HTTP broadcasts to them
	PolicyFlushes atomic.Int64 // flushes that asked them; PolicyChecks/PolicyFlushes is how many share one

	ClosedIdle     atomic.Int64
	ClosedEmpty    atomic.Int64 // without a channel for too long
	ClosedProtocol atomic.Int64 // 1002 and 1009
	ClosedSlow     atomic.Int64 // queue full or write timeout
	ClosedHeld     atomic.Int64 // too much sent while a join was under way
	ClosedJoins    atomic.Int64 // joined while joins had reached their limit
	ClosedEvents   atomic.Int64 // channels: events had reached their limit
	ClosedPresence atomic.Int64 // channels: a limit on presence

	DroppedMalformed   atomic.Int64 // frames that could not be read
	DroppedOversize    atomic.Int64 // broadcasts over the payload limit
	DroppedUnencodable atomic.Int64 // deliveries that have no form in the receiver's version
	DroppedMuted       atomic.Int64 // writes and deliveries of channels with an expired token
	DroppedDenied      atomic.Int64 // broadcasts to private topics that policies do not allow
	DroppedUnknown     atomic.Int64 // events without a meaning
	DroppedRows        atomic.Int64 // rows of realtime.messages that cannot be broadcast
	DroppedStale       atomic.Int64 // rows of realtime.messages that were left to replay after a downtime
	DroppedReplayed    atomic.Int64 // deliveries of rows that the channel had by replay
	DroppedChanges     atomic.Int64 // changes that could not wait for a join reply; the channel fails
	DroppedChangeRate  atomic.Int64 // changes over the limit on events; the channel is told

	limits *limits // fixed after New
}

const metricPrefix = "sluice_realtime_"

var (
	descConns      = desc("connections", "Open sockets.")
	descUsers      = desc("users", "Sockets that have joined a channel; bounded by MaxUsers.")
	descChannels   = desc("channels", "Joined channels.")
	descQueue      = desc("queue_bytes", "Bytes that wait for readers, at the last look a second ago at most.")
	descHeld       = desc("held_messages", "Messages that wait for their channel's join or token refresh.")
	descAccepted   = desc("connections_accepted_total", "Sockets accepted.")
	descRefused    = desc("requests_refused_total", "Handshakes and HTTP broadcasts refused, by reason.", "reason")
	descJoins      = desc("joins_total", "Joins, by result.", "result")
	descFrames     = desc("frames_total", "Frames, by direction.", "direction")
	descBytes      = desc("bytes_total", "Bytes of messages, by direction.", "direction")
	descWrites     = desc("writes_total", "Writes to sockets; frames out by writes is how many frames share one.")
	descBroadcasts = desc("broadcasts_total", "Broadcasts sent to the bus from here.")
	descDeliveries = desc("deliveries_total", "Messages queued for a channel, by kind.", "kind")
	descRequests   = desc("http_requests_total", "HTTP requests to the project's routes.")
	descRows       = desc("database_rows_total", "Rows of realtime.messages that were broadcast.")
	descChecks     = desc("policy_checks_total", "Questions to the policies of private channels.")
	descFlushes    = desc("policy_flushes_total", "Round trips that asked them; checks by flushes is how many share one.")
	descPanics     = desc("panics_total", "Sockets ended by a bug.")
	descClosed     = desc("closed_total", "Sockets closed by this side, by reason.", "reason")
	descShut       = desc("channels_shut_total", "Channels shut down for a limit, by reason.", "reason")
	descDropped    = desc("dropped_total", "Messages dropped, by reason.", "reason")
	descCounted    = desc("limit_counted_total", "What a limit counts, by limit.", "limit")
	descRate       = desc("limit_per_second", "The average that a limit is compared with, by limit.", "limit")
	descBound      = desc("limit_bound", "The configured bound of a limit; +Inf when it is off.", "limit")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(metricPrefix+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v *atomic.Int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), labels...)
	}
	gauge(descConns, float64(m.Conns.Load()))
	gauge(descUsers, float64(m.limits.users.Load()))
	gauge(descChannels, float64(m.Channels.Load()))
	gauge(descQueue, float64(m.QueueBytes.Load()))
	gauge(descHeld, float64(m.Held.Load()))
	counter(descAccepted, &m.Accepted)
	counter(descRefused, &m.Refused, "refusal")
	counter(descRefused, &m.RefusedRate, "rate")
	counter(descJoins, &m.Joins, "asked")
	counter(descJoins, &m.JoinsFailed, "refused")
	counter(descFrames, &m.FramesIn, "in")
	counter(descFrames, &m.FramesOut, "out")
	counter(descBytes, &m.BytesIn, "in")
	counter(descBytes, &m.BytesOut, "out")
	counter(descWrites, &m.Writes)
	counter(descBroadcasts, &m.Broadcasts)
	counter(descDeliveries, &m.Delivered, "broadcast")
	counter(descDeliveries, &m.Changes, "postgres_changes")
	counter(descDeliveries, &m.Replayed, "replay")
	counter(descRows, &m.Rows)
	counter(descRequests, &m.HTTPRequests)
	counter(descPanics, &m.Panics)
	counter(descChecks, &m.PolicyChecks)
	counter(descFlushes, &m.PolicyFlushes)

	counter(descClosed, &m.ClosedIdle, "idle")
	counter(descClosed, &m.ClosedEmpty, "no_channel")
	counter(descClosed, &m.ClosedProtocol, "protocol")
	counter(descClosed, &m.ClosedSlow, "slow_reader")
	counter(descClosed, &m.ClosedHeld, "flood_before_join")
	counter(descClosed, &m.ClosedJoins, "joins_rate")
	counter(descShut, &m.ClosedEvents, "events_rate")
	counter(descShut, &m.ClosedPresence, "presence_rate")

	counter(descDropped, &m.DroppedMalformed, "malformed")
	counter(descDropped, &m.DroppedOversize, "oversize")
	counter(descDropped, &m.DroppedUnencodable, "no_form_in_version")
	counter(descDropped, &m.DroppedMuted, "token_expired")
	counter(descDropped, &m.DroppedDenied, "not_allowed")
	counter(descDropped, &m.DroppedUnknown, "unknown_event")
	counter(descDropped, &m.DroppedRows, "database_row")
	counter(descDropped, &m.DroppedStale, "database_row_too_old")
	counter(descDropped, &m.DroppedReplayed, "had_by_replay")
	counter(descDropped, &m.DroppedChanges, "changes_before_join")
	counter(descDropped, &m.DroppedChangeRate, "changes_rate")

	for name, r := range map[string]*rate{
		"joins": m.limits.joins, "events": m.limits.events, "changes": m.limits.changes,
		"presence": m.limits.presence, "requests": m.limits.requests,
	} {
		counter(descCounted, &r.count, name)
		gauge(descRate, r.perSecond(), name)
		gauge(descBound, r.limit, name)
	}
	gauge(descBound, m.limits.maxUsers, "users")
}
