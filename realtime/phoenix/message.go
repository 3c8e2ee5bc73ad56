package phoenix

import (
	"errors"
	"fmt"
	"strings"
)

// Version is a protocol version, by its major number.
type Version uint8

// Protocol versions.
const (
	V1 Version = 1 // vsn=1.0.0: JSON objects in text frames
	V2 Version = 2 // vsn=2.0.0: JSON arrays in text frames, and binary frames
)

// String returns the version as clients ask for it.
func (v Version) String() string { return fmt.Sprintf("%d.0.0", v) }

// ParseVersion reads the query parameter vsn: a full semantic version in 1.0.x
// or 2.0.x. Empty means 1.0.0.
func ParseVersion(vsn string) (Version, error) {
	if vsn == "" {
		return V1, nil
	}
	if len(vsn) <= 32 {
		major, patch, ok := strings.Cut(vsn, ".0.")
		if ok && isNumber(patch) {
			switch major {
			case "1":
				return V1, nil
			case "2":
				return V2, nil
			}
		}
		return 0, fmt.Errorf("protocol version %q is not served", vsn)
	}
	return 0, errors.New("protocol version is not served")
}

// isNumber reports whether s is a semantic version's numeric identifier.
func isNumber(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != "" && (s == "0" || s[0] != '0')
}

// Events.
const (
	EventHeartbeat       = "heartbeat"
	EventJoin            = "phx_join"
	EventLeave           = "phx_leave"
	EventReply           = "phx_reply"
	EventClose           = "phx_close"
	EventError           = "phx_error"
	EventBroadcast       = "broadcast"
	EventPresence        = "presence"
	EventPresenceState   = "presence_state"
	EventPresenceDiff    = "presence_diff"
	EventAccessToken     = "access_token"
	EventSystem          = "system"
	EventPostgresChanges = "postgres_changes"
)

// TopicHeartbeat is the one topic without TopicPrefix.
const (
	TopicHeartbeat = "phoenix"
	TopicPrefix    = "realtime:"
)

// Reply statuses.
const (
	StatusOK    = "ok"
	StatusError = "error"
)

// Ref is a message reference as its JSON text, which is sent back exactly as it
// came; empty means null.
type Ref string

// maxRef bounds a reference; clients count from "1".
const maxRef = 255

// Form tells how a message arrived.
type Form uint8

// Forms of messages.
const (
	// Text is a JSON message.
	Text Form = iota
	// BinaryPush is Phoenix's generic binary push, kind 0: Payload is opaque.
	BinaryPush
	// UserBroadcast is kind 3: UserEvent, Encoding and Payload.
	UserBroadcast
)

// Message is one message of a client.
type Message struct {
	Form    Form
	JoinRef Ref
	Ref     Ref
	Topic   string
	Event   string
	// Payload is the JSON text of the payload, or raw bytes (BinaryPush, or a
	// UserBroadcast that is not JSON). It aliases the frame.
	Payload []byte
	// UserEvent and JSON belong to a UserBroadcast.
	UserEvent string
	JSON      bool
	// Metadata is a UserBroadcast's metadata; the server checks and ignores it.
	Metadata []byte
}

// FrameError says why a frame could not be read. The frame is dropped, the
// connection stays.
type FrameError struct {
	// Code is the log code of Supabase Realtime: MalformedWebSocketMessage or
	// UnknownErrorOnWebSocketMessage.
	Code   string
	Reason string
}

func (e *FrameError) Error() string { return e.Code + ": " + e.Reason }

// Codes of a FrameError.
const (
	CodeMalformed = "MalformedWebSocketMessage"
	CodeUnknown   = "UnknownErrorOnWebSocketMessage"
)

func malformed(reason string) error { return &FrameError{Code: CodeMalformed, Reason: reason} }
func unknown(reason string) error   { return &FrameError{Code: CodeUnknown, Reason: reason} }

// event returns a known event's constant, so that reading one allocates nothing.
func event(b []byte) string {
	switch string(b) {
	case EventHeartbeat:
		return EventHeartbeat
	case EventJoin:
		return EventJoin
	case EventLeave:
		return EventLeave
	case EventBroadcast:
		return EventBroadcast
	case EventPresence:
		return EventPresence
	case EventAccessToken:
		return EventAccessToken
	}
	return string(b)
}
