package phoenix

import (
	"encoding/json"
	"unicode/utf8"
)

// Decode reads one message of a client. binary tells the frame's opcode. The
// error is a *FrameError.
func Decode(v Version, data []byte, binary bool) (Message, error) {
	switch {
	case binary && v == V1:
		return Message{}, malformed("binary frame on version 1.0.0")
	case binary:
		return decodeBinary(data)
	case !utf8.Valid(data):
		return Message{}, malformed("text is not UTF-8")
	case !json.Valid(data):
		return Message{}, malformed("text is not JSON")
	case v == V1:
		return decodeObject(data)
	}
	return decodeArray(data)
}

// decodeArray reads [join_ref, ref, topic, event, payload, …].
func decodeArray(data []byte) (m Message, err error) {
	const fields = 5
	var part [fields][]byte
	n := 0
	ok := eachElement(data, func(value []byte) bool {
		part[n] = value
		n++
		return n < fields
	})
	if !ok || n < fields {
		return m, malformed("not an array of 5 elements")
	}
	return assemble(part[0], part[1], part[2], part[3], part[4])
}

// decodeObject reads {"topic","event","payload","ref"[,"join_ref"]}.
func decodeObject(data []byte) (m Message, err error) {
	var joinRef, ref, topic, event, payload []byte
	ok := eachMember(data, func(_, key, value []byte) bool {
		switch string(key) {
		case "topic":
			topic = value
		case "event":
			event = value
		case "payload":
			payload = value
		case "ref":
			ref = value
		case "join_ref":
			joinRef = value
		}
		return true
	})
	if !ok || topic == nil || event == nil || payload == nil || ref == nil {
		return m, malformed("topic, event, payload or ref is missing")
	}
	if joinRef == nil {
		joinRef = []byte("null")
	}
	return assemble(joinRef, ref, topic, event, payload)
}

func assemble(joinRef, ref, topic, ev, payload []byte) (m Message, err error) {
	if m.JoinRef, err = parseRef(joinRef); err != nil {
		return Message{}, err
	}
	if m.Ref, err = parseRef(ref); err != nil {
		return Message{}, err
	}
	t, ok := unquote(topic)
	if !ok {
		return Message{}, malformed("topic is not a string")
	}
	e, ok := unquote(ev)
	if !ok {
		return Message{}, malformed("event is not a string")
	}
	m.Topic, m.Event, m.Payload = string(t), event(e), payload
	return m, nil
}

// parseRef takes strings, numbers and null; anything else is no reference.
func parseRef(value []byte) (Ref, error) {
	switch c := value[0]; {
	case c == 'n':
		return "", nil
	case c != '"' && c != '-' && (c < '0' || c > '9'):
		return "", malformed("ref is neither string nor null")
	case len(value) > maxRef:
		return "", malformed("ref is too long")
	}
	return Ref(value), nil
}

// Binary frame kinds.
const (
	kindPush                = 0
	kindUserBroadcastPush   = 3
	kindUserBroadcast       = 4
	encodingBinary          = 0
	encodingJSON            = 1
	headerPush              = 5
	headerUserBroadcastPush = 7
	maxField                = 255 // every sized field has a length of one byte
)

func decodeBinary(data []byte) (m Message, err error) {
	if len(data) == 0 {
		return m, unknown("empty binary frame")
	}
	switch data[0] {
	case kindPush:
		if len(data) < headerPush {
			return m, unknown("binary header is cut off")
		}
		f, rest, err := fields(data[1:headerPush], data[headerPush:])
		if err != nil {
			return m, err
		}
		return Message{
			Form: BinaryPush, JoinRef: quoteRef(f[0]), Ref: quoteRef(f[1]),
			Topic: string(f[2]), Event: event(f[3]), Payload: rest,
		}, nil
	case kindUserBroadcastPush:
		if len(data) < headerUserBroadcastPush {
			return m, unknown("binary header is cut off")
		}
		f, rest, err := fields(data[1:headerUserBroadcastPush-1], data[headerUserBroadcastPush:])
		if err != nil {
			return m, err
		}
		m = Message{
			Form: UserBroadcast, JoinRef: quoteRef(f[0]), Ref: quoteRef(f[1]),
			Topic: string(f[2]), Event: EventBroadcast, UserEvent: string(f[3]), Metadata: f[4],
			JSON: data[headerUserBroadcastPush-1] != encodingBinary, Payload: rest,
		}
		if len(m.Metadata) > 0 && !json.Valid(m.Metadata) {
			return Message{}, malformed("metadata is not JSON")
		}
		// Upstream forwards the payload unread; spliced into a text frame it
		// could then break every receiver.
		if m.JSON && (!utf8.Valid(rest) || !json.Valid(rest)) {
			return Message{}, malformed("payload is not JSON")
		}
		return m, nil
	}
	return m, unknown("binary kind is not served")
}

// fields cuts data into pieces of the given sizes, which must be UTF-8.
func fields(sizes, data []byte) (f [5][]byte, rest []byte, err error) {
	for i, size := range sizes {
		if len(data) < int(size) {
			return f, nil, unknown("binary header is cut off")
		}
		f[i], data = data[:size], data[size:]
		if !utf8.Valid(f[i]) {
			return f, nil, unknown("binary header is not UTF-8")
		}
	}
	return f, data, nil
}

// quoteRef turns a binary frame's reference into JSON text.
func quoteRef(b []byte) Ref {
	if len(b) == 0 {
		return ""
	}
	return Ref(AppendString(make([]byte, 0, len(b)+2), string(b)))
}
