package sluice

// Topic is one namespace of messages: what a client joins as
// "realtime:" + Name, public or private. Public and private topics of the same
// name never meet.
type Topic struct {
	Name    string // without the prefix "realtime:"
	Private bool
}

// BroadcastForm is the form in which a broadcast arrived. It decides the form
// in which each protocol version receives it.
type BroadcastForm uint8

// Forms of broadcasts.
const (
	// BroadcastObject is a whole JSON payload, relayed unchanged: a text frame
	// or a member of an HTTP batch.
	BroadcastObject BroadcastForm = iota
	// BroadcastJSON is an event name with its JSON payload.
	BroadcastJSON
	// BroadcastBinary is an event name with raw bytes; version 1.0.0 cannot
	// receive it.
	BroadcastBinary
)

// Broadcast is one message for everybody on a topic. It is shared by all
// receivers and read-only; a receiver that keeps it beyond the call copies it.
type Broadcast struct {
	Topic Topic
	Form  BroadcastForm
	// Event is the user's event name; unused for BroadcastObject.
	Event string
	// Payload is JSON text (UTF-8, one value) or raw bytes, by Form.
	Payload []byte
	// Meta is a JSON object's text, or empty; unused for BroadcastObject.
	Meta []byte
	// ID is what meta.id says: the id of the row of realtime.messages, or one
	// that an HTTP sender chose; mostly empty. A channel that had the row by
	// replay does not get it again.
	ID string
	// Sender is the channel that gets no copy, 0 when everybody does. It is a
	// number of the publishing node and does not cross to other nodes.
	Sender uint64
}
