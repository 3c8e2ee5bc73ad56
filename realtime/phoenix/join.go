package phoenix

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice"
)

// Join is the payload of phx_join.
type Join struct {
	// Legacy is set when the payload has no key config: the topic itself names
	// the table (clients before 2022).
	Legacy bool

	Private          bool
	Ack              bool // reply to each broadcast
	Self             bool // the sender receives its own broadcasts
	ReplicationReady bool
	// Replay is the raw member, nil when the key is absent.
	Replay json.RawMessage
	// PresenceKey is empty when the server chooses one.
	PresenceKey     string
	PresenceEnabled bool
	// Positions is set when the client wants to know where each change committed,
	// From and Index when it says from where on it wants changes (config member
	// sluice_resume, ours alone).
	Positions bool
	From      sluice.LSN
	Index     int
	// Changes are the postgres_changes objects, exactly as sent; null entries
	// are gone.
	Changes []json.RawMessage

	// Token is the access token to use, HasToken whether there is one: without
	// it the channel uses the handshake's identity.
	Token    string
	HasToken bool
	// Undecided is set when there was no token at all, not even an API key. A
	// stock client that has looked for its session sends one or the other, so
	// this one has not looked yet.
	Undecided bool
	// Version is the client's name and version, for logs.
	Version string

	// Problems are the parts that could not be read and were replaced by their
	// defaults, without any value. The join goes on.
	Problems []string
}

// JoinError is a payload that fails the join. Its text is public.
type JoinError struct{ Reason string }

func (e *JoinError) Error() string { return e.Reason }

// Bounds of a join payload.
const (
	maxPresenceKey = 512
	maxVersion     = 64
)

// ParseJoin reads the payload of phx_join, which must be valid JSON. maxChanges
// bounds the entries of postgres_changes. The error is a *JoinError.
func ParseJoin(payload []byte, maxChanges int) (Join, error) {
	var j Join
	top, ok := members(payload)
	if !ok {
		return j, &JoinError{"the join payload is not an object"}
	}
	j.chooseToken(top["access_token"], top["user_token"])
	if s, ok := str(top["version"]); ok && len(s) <= maxVersion {
		j.Version = s
	}
	config, ok := top["config"]
	if !ok {
		j.Legacy = true
		return j, nil
	}
	cfg, ok := members(config)
	if !ok {
		return j, &JoinError{"config is not an object"}
	}
	j.flag(&j.Private, cfg["private"], "private")
	if err := j.broadcast(cfg["broadcast"]); err != nil {
		return j, err
	}
	j.presence(cfg["presence"])
	if err := j.resume(cfg["sluice_resume"]); err != nil {
		return j, err
	}
	return j, j.changes(cfg["postgres_changes"], maxChanges)
}

// chooseToken follows the order of the original: a value that starts with sb_
// in the field that counts means the handshake's identity; else user_token wins
// over access_token; else the handshake's identity again.
func (j *Join) chooseToken(access, user json.RawMessage) {
	first := access
	if len(first) == 0 || IsNull(first) || bytes.Equal(first, []byte("false")) {
		first = user
	}
	if s, ok := str(first); ok && IsAPIKey(s) {
		return
	}
	for _, f := range []struct {
		name  string
		value json.RawMessage
	}{{"user_token", user}, {"access_token", access}} {
		if s, ok := str(f.value); ok {
			if !IsAPIKey(s) {
				j.Token, j.HasToken = s, true
			}
			return
		}
		if len(f.value) > 0 && !IsNull(f.value) {
			j.problem(f.name, "string")
		}
	}
	j.Undecided = true
}

// IsAPIKey reports whether a token is an opaque API key, which stands for the
// identity of the handshake.
func IsAPIKey(token string) bool { return strings.HasPrefix(token, "sb_") }

func (j *Join) broadcast(raw json.RawMessage) error {
	if len(raw) == 0 || IsNull(raw) {
		return nil
	}
	b, ok := members(raw)
	if !ok {
		return &JoinError{"config.broadcast is not an object"}
	}
	j.flag(&j.Ack, b["ack"], "broadcast.ack")
	j.flag(&j.Self, b["self"], "broadcast.self")
	if r, ok := b["replication_ready"]; ok {
		j.ReplicationReady = !IsNull(r) && string(r) != "false"
	}
	j.Replay = b["replay"]
	if len(j.Replay) > 0 && !IsNull(j.Replay) && !IsObject(j.Replay) {
		j.problem("broadcast.replay", "map")
	}
	return nil
}

func (j *Join) presence(raw json.RawMessage) {
	if len(raw) == 0 || IsNull(raw) {
		return
	}
	p, ok := members(raw)
	if !ok {
		j.problem("presence", "map")
		return
	}
	j.flag(&j.PresenceEnabled, p["enabled"], "presence.enabled")
	key := p["key"]
	if len(key) == 0 || IsNull(key) {
		return
	}
	s, ok := str(key)
	if !ok && (key[0] == '-' || key[0] >= '0' && key[0] <= '9') {
		s, ok = string(key), true
	}
	// "ids" as a presence key would make realtime-js read the presence state
	// as a change of a table.
	if !ok || len(s) > maxPresenceKey || s == "ids" {
		j.problem("presence.key", "string")
		return
	}
	j.PresenceKey = s
}

// resume reads true, or {"lsn": "0/16B3748", "index": 3}: the change behind the last
// one that the client has. A wrong one fails the join: its client would miss rows.
func (j *Join) resume(raw json.RawMessage) error {
	if len(raw) == 0 || IsNull(raw) || string(raw) == "false" {
		return nil
	}
	j.Positions = true
	if string(raw) == "true" {
		return nil
	}
	m, ok := members(raw)
	if !ok {
		return &JoinError{"config.sluice_resume is neither true nor an object"}
	}
	text, ok := str(m["lsn"])
	at, err := sluice.ParseLSN(text)
	if !ok || err != nil || at == 0 {
		return &JoinError{"config.sluice_resume.lsn is no position such as 0/16B3748"}
	}
	index := 0
	if raw := m["index"]; len(raw) > 0 && !IsNull(raw) {
		if index, err = strconv.Atoi(string(raw)); err != nil || index < 0 {
			return &JoinError{"config.sluice_resume.index is no number of a change"}
		}
	}
	j.From, j.Index = at, index
	return nil
}

func (j *Join) changes(raw json.RawMessage, maxChanges int) error {
	if len(raw) == 0 || IsNull(raw) {
		return nil
	}
	var err error
	isArray := eachElement(raw, func(value []byte) bool {
		switch {
		case IsNull(value):
			return true
		case !IsObject(value):
			err = &JoinError{"an entry of config.postgres_changes is not an object"}
		case len(j.Changes) >= maxChanges:
			err = &JoinError{"config.postgres_changes has more than " + strconv.Itoa(maxChanges) + " entries"}
		default:
			j.Changes = append(j.Changes, bytes.Clone(value))
		}
		return err == nil
	})
	if !isArray {
		j.problem("postgres_changes", "array")
	}
	return err
}

// flag reads a flexible boolean: true, false, or these words as a string in any
// case. Absence is false; anything else is false too, and a problem.
func (j *Join) flag(dst *bool, raw json.RawMessage, name string) {
	if len(raw) == 0 {
		return
	}
	switch string(raw) {
	case "true":
		*dst = true
		return
	case "false":
		return
	}
	if s, ok := str(raw); ok {
		switch strings.ToLower(s) {
		case "true":
			*dst = true
			return
		case "false":
			return
		}
	}
	j.problem(name, "boolean")
}

func (j *Join) problem(field, want string) {
	j.Problems = append(j.Problems, field+": unable to parse, expected "+want)
}

// members returns an object's members by key; the last of equal keys wins.
func members(raw []byte) (map[string]json.RawMessage, bool) {
	m := map[string]json.RawMessage{}
	ok := eachMember(raw, func(_, key, value []byte) bool {
		m[string(key)] = value
		return true
	})
	return m, ok
}

func str(raw json.RawMessage) (string, bool) {
	b, ok := unquote(raw)
	return string(b), ok
}

// idBits is the width of upstream's ids; other SDKs decode a 32-bit integer.
const idMask = 1<<27 - 1

// BindingIDs returns one id per entry of postgres_changes: equal objects have
// equal ids, different ones differ, none is 0 (which realtime-js takes for "no
// id").
func BindingIDs(changes []json.RawMessage) ([]int64, error) {
	ids := make([]int64, len(changes))
	taken := make(map[int64]string, len(changes))
	for i, raw := range changes {
		// Unmarshal and Marshal sort the keys.
		var v any
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(&v); err != nil {
			return nil, &JoinError{"an entry of config.postgres_changes is not valid"}
		}
		canonical, err := json.Marshal(v)
		if err != nil {
			return nil, errors.Join(&JoinError{"an entry of config.postgres_changes is not valid"}, err)
		}
		h := fnv.New32a()
		h.Write(canonical)
		id := int64(h.Sum32() & idMask)
		for {
			if id == 0 {
				id = 1
			}
			if other, ok := taken[id]; !ok || other == string(canonical) {
				break
			}
			id = (id + 1) & idMask
		}
		taken[id] = string(canonical)
		ids[i] = id
	}
	return ids, nil
}

// AppendJoinResponse appends the response of an accepted join: every entry of
// postgres_changes with all its members as they were sent, and its id.
func AppendJoinResponse(dst []byte, changes []json.RawMessage, ids []int64) []byte {
	dst = append(dst, `{"postgres_changes":[`...)
	for i, raw := range changes {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		var any bool
		if dst, any = AppendMembers(dst, raw, "id"); any {
			dst = append(dst, ',')
		}
		dst = append(dst, `"id":`...)
		dst = strconv.AppendInt(dst, ids[i], 10)
		dst = append(dst, '}')
	}
	return append(dst, "]}"...)
}

// LegacyChanges derives the one subscription of a join without config from its
// sub-topic: schema[:table[:filter]].
func LegacyChanges(sub string) json.RawMessage {
	names := [...]string{"schema", "table", "filter"}
	dst := []byte{'{'}
	for i, part := range strings.SplitN(sub, ":", len(names)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, names[i])
		dst = append(dst, ':')
		dst = AppendString(dst, part)
	}
	return append(dst, '}')
}

// TokenChange is the payload of an access_token event.
type TokenChange struct {
	Token string
	// Ignore is set for null and for API keys: the channel keeps its token.
	Ignore bool
	// Unknown is set when there is no token at all: an unknown event.
	Unknown bool
}

// ParseAccessToken reads the payload of an access_token event.
func ParseAccessToken(payload []byte) TokenChange {
	var raw json.RawMessage
	eachMember(payload, func(_, key, value []byte) bool {
		if string(key) == "access_token" {
			raw = value
		}
		return true
	})
	if len(raw) > 0 && IsNull(raw) {
		return TokenChange{Ignore: true}
	}
	s, ok := str(raw)
	if !ok {
		return TokenChange{Unknown: true}
	}
	return TokenChange{Token: s, Ignore: IsAPIKey(s)}
}

// PresencePush is the payload of a presence event.
type PresencePush struct {
	HasEvent bool
	Event    string // lower case; empty when it is not a string
	// Payload is nil when the key is missing.
	Payload json.RawMessage
}

// ParsePresence reads the payload of a presence event.
func ParsePresence(payload []byte) PresencePush {
	var p PresencePush
	eachMember(payload, func(_, key, value []byte) bool {
		switch string(key) {
		case "event":
			p.HasEvent = true
			s, _ := str(value)
			p.Event = strings.ToLower(s)
		case "payload":
			p.Payload = value
		}
		return true
	})
	return p
}
