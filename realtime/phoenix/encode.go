package phoenix

import (
	"fmt"
	"strconv"

	"github.com/sluice-dev/sluice"
)

// The Append functions append one whole message in the serializer of version v
// and return the extended slice. Those of fan-out messages are called once per
// version and their bytes shared by all receivers.

func (r Ref) append(dst []byte) []byte {
	if r == "" {
		return append(dst, "null"...)
	}
	return append(dst, r...)
}

// AppendMessage appends an event with a payload, which must be JSON text.
// Version 1.0.0 never sends joinRef.
func AppendMessage(dst []byte, v Version, joinRef, ref Ref, topic, event string, payload []byte) []byte {
	dst = appendHead(dst, v, joinRef, ref, topic, event)
	dst = append(dst, payload...)
	return appendTail(dst, v, ref)
}

// appendHead appends everything that stands before the payload.
func appendHead(dst []byte, v Version, joinRef, ref Ref, topic, event string) []byte {
	if v == V1 {
		dst = append(dst, `{"topic":`...)
		dst = AppendString(dst, topic)
		dst = append(dst, `,"event":`...)
		dst = AppendString(dst, event)
		return append(dst, `,"payload":`...)
	}
	dst = append(dst, '[')
	dst = joinRef.append(dst)
	dst = append(dst, ',')
	dst = ref.append(dst)
	dst = append(dst, ',')
	dst = AppendString(dst, topic)
	dst = append(dst, ',')
	dst = AppendString(dst, event)
	return append(dst, ',')
}

// appendTail appends everything that stands behind the payload.
func appendTail(dst []byte, v Version, ref Ref) []byte {
	if v == V1 {
		dst = append(dst, `,"ref":`...)
		dst = ref.append(dst)
		return append(dst, '}')
	}
	return append(dst, ']')
}

// AppendReply appends the answer to one push. response is JSON text.
func AppendReply(dst []byte, v Version, joinRef, ref Ref, topic, status string, response []byte) []byte {
	dst = appendHead(dst, v, joinRef, ref, topic, EventReply)
	dst = append(dst, `{"status":`...)
	dst = AppendString(dst, status)
	dst = append(dst, `,"response":`...)
	dst = append(dst, response...)
	dst = append(dst, '}')
	return appendTail(dst, v, ref)
}

// AppendReason appends an error reply {"reason": reason}.
func AppendReason(dst []byte, v Version, joinRef, ref Ref, topic, reason string) []byte {
	dst = appendHead(dst, v, joinRef, ref, topic, EventReply)
	dst = append(dst, `{"status":"error","response":{"reason":`...)
	dst = AppendString(dst, reason)
	dst = append(dst, "}}"...)
	return appendTail(dst, v, ref)
}

// AppendClose appends phx_close. Its ref is the channel's join ref: clients
// ignore the close of a channel that they have replaced by that.
func AppendClose(dst []byte, v Version, joinRef Ref, topic string) []byte {
	return AppendMessage(dst, v, joinRef, joinRef, topic, EventClose, []byte("{}"))
}

// AppendError appends phx_error, after which clients join again by themselves.
func AppendError(dst []byte, v Version, joinRef Ref, topic, reason string) []byte {
	dst = appendHead(dst, v, joinRef, joinRef, topic, EventError)
	dst = append(dst, `{"reason":`...)
	dst = AppendString(dst, reason)
	dst = append(dst, '}')
	return appendTail(dst, v, joinRef)
}

// System is the payload of a system message.
type System struct {
	Extension string
	Status    string
	Message   string
	Channel   string // sub-topic; left out when empty
}

// AppendSystem appends a system message of a channel.
func AppendSystem(dst []byte, v Version, joinRef Ref, topic string, s System) []byte {
	dst = appendHead(dst, v, joinRef, "", topic, EventSystem)
	dst = append(dst, `{"extension":`...)
	dst = AppendString(dst, s.Extension)
	dst = append(dst, `,"status":`...)
	dst = AppendString(dst, s.Status)
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, s.Message)
	if s.Channel != "" {
		dst = append(dst, `,"channel":`...)
		dst = AppendString(dst, s.Channel)
	}
	dst = append(dst, '}')
	return appendTail(dst, v, "")
}

// AppendChange appends a change of a table for the channel's bindings ids. data
// is the shared JSON text of the change.
func AppendChange(dst []byte, v Version, topic string, ids []int64, data []byte) []byte {
	dst = appendHead(dst, v, "", "", topic, EventPostgresChanges)
	dst = append(dst, `{"ids":[`...)
	for i, id := range ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, id, 10)
	}
	dst = append(dst, `],"data":`...)
	dst = append(dst, data...)
	dst = append(dst, '}')
	return appendTail(dst, v, "")
}

// AppendChangeAt is AppendChange for a client that asked for positions: data begins
// with where its transaction committed and the change's place in it.
func AppendChangeAt(dst []byte, v Version, topic string, ids []int64, data []byte, at sluice.LSN, index int) []byte {
	with := append(make([]byte, 0, len(data)+64), `{"commit_lsn":"`...)
	with = append(append(with, at.String()...), `","commit_index":`...)
	with = append(strconv.AppendInt(with, int64(index), 10), ',')
	return AppendChange(dst, v, topic, ids, append(with, data[1:]...)) // data is an object with members
}

// EncodeError says that a message has no form in a protocol version; it is not
// sent to receivers of that version.
type EncodeError struct {
	Version Version
	Reason  string
}

func (e *EncodeError) Error() string {
	return fmt.Sprintf("message cannot be encoded for version %d.0.0: %s", e.Version, e.Reason)
}

// AppendBroadcast appends a broadcast in the form that version v receives, and
// reports whether that is a binary frame. topic is the joined topic, with its
// prefix. The error is an *EncodeError.
func AppendBroadcast(dst []byte, v Version, topic string, b *sluice.Broadcast) (out []byte, binary bool, err error) {
	switch {
	case b.Form == sluice.BroadcastObject:
		if v == V2 && !IsObject(b.Payload) {
			return dst, false, &EncodeError{v, "payload is not an object"}
		}
		return AppendMessage(dst, v, "", "", topic, EventBroadcast, b.Payload), false, nil
	case b.Form == sluice.BroadcastBinary && v == V1:
		return dst, false, &EncodeError{v, "payload is binary"}
	case v == V2:
		out, err = AppendUserBroadcast(dst, topic, b.Event, b.Meta, b.Form == sluice.BroadcastJSON, b.Payload)
		if err == nil || b.Form == sluice.BroadcastBinary {
			return out, true, err
		}
		// A long name does not fit into kind 4; the text form carries it, and
		// clients hand both to the same listener.
	}
	return appendTextBroadcast(dst, v, "", topic, b), false, nil
}

// appendTextBroadcast appends a broadcast that has an event of its own as text.
func appendTextBroadcast(dst []byte, v Version, joinRef Ref, topic string, b *sluice.Broadcast) []byte {
	dst = appendHead(dst, v, joinRef, "", topic, EventBroadcast)
	dst = append(dst, `{"type":"broadcast","event":`...)
	dst = AppendString(dst, b.Event)
	dst = append(dst, `,"payload":`...)
	dst = append(dst, b.Payload...)
	if len(b.Meta) > 0 {
		dst = append(dst, `,"meta":`...)
		dst = append(dst, b.Meta...)
	}
	dst = append(dst, '}')
	return appendTail(dst, v, "")
}

// AppendReplayed appends a broadcast that one channel gets by replay, and
// reports whether that is a binary frame. Unlike a live one, JSON is text in
// every version, and names the channel's join. The error is an *EncodeError.
func AppendReplayed(dst []byte, v Version, joinRef Ref, topic string, b *sluice.Broadcast) (out []byte, binary bool, err error) {
	if b.Form == sluice.BroadcastBinary {
		return AppendBroadcast(dst, v, topic, b)
	}
	return appendTextBroadcast(dst, v, joinRef, topic, b), false, nil
}

// AppendUserBroadcast appends kind 4, the only binary kind that realtime-js
// reads. The error is an *EncodeError: a field is longer than 255 bytes.
func AppendUserBroadcast(dst []byte, topic, event string, meta []byte, isJSON bool, payload []byte) ([]byte, error) {
	if len(topic) > maxField || len(event) > maxField || len(meta) > maxField {
		return dst, &EncodeError{V2, "a header field is longer than 255 bytes"}
	}
	encoding := byte(encodingBinary)
	if isJSON {
		encoding = encodingJSON
	}
	dst = append(dst, kindUserBroadcast, byte(len(topic)), byte(len(event)), byte(len(meta)), encoding)
	dst = append(dst, topic...)
	dst = append(dst, event...)
	dst = append(dst, meta...)
	return append(dst, payload...), nil
}
