package realtime

import (
	"encoding/hex"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// Broadcast from Database: every row that is inserted into realtime.messages,
// by realtime.send and its kin or by hand, is a broadcast for the topic that it
// names. Nobody is asked whether the writer may send: the INSERT has been
// allowed; nor for each row whether a channel may read: its join was.

// maxRowAge is how old a row may be when the stream brings it. What was
// committed longer before, while nobody read the log, is history: clients that
// want it ask for a replay.
const maxRowAge = 60 * time.Second

// DeliverRows hands rows inserted into realtime.messages to this node's
// subscribers, in order; the bus calls it. It does not block. A row that cannot
// be delivered is dropped alone, counted and logged.
func (s *Server) DeliverRows(b sluice.ChangeBatch) {
	// Both times are of the database's own clock.
	if age := b.Sent.Sub(b.CommitTime); age > maxRowAge {
		s.metrics.DroppedStale.Add(int64(len(b.Changes)))
		s.rowLog.warn(s.log, "rows of realtime.messages are older than a minute, left to replay", "", b.Commit)
		return
	}
	var place rowPlaces
	for i := range b.Changes {
		ch := &b.Changes[i]
		if place.relation != ch.Relation {
			place = placesOf(ch.Relation)
		}
		msg, problem := place.broadcast(ch.New, s.cfg.maxPayload())
		if problem != "" {
			s.metrics.DroppedRows.Add(1)
			s.rowLog.warn(s.log, "row of realtime.messages is not delivered: "+problem, msg.Topic.Name, b.Commit)
			continue
		}
		if s.limits.events.reached() {
			s.metrics.DroppedRows.Add(1)
			s.rowLog.warn(s.log, "rows of realtime.messages are not delivered: too many events", msg.Topic.Name, b.Commit)
			continue
		}
		s.limits.events.add(1)
		s.metrics.Rows.Add(1)
		s.hub.Deliver(&msg)
	}
}

// rowPlaces is where a relation has the columns of realtime.messages, -1 where
// it lacks one.
type rowPlaces struct {
	relation                                               *sluice.Relation
	id, topic, event, private, insertedAt, payload, binary int
}

func placesOf(r *sluice.Relation) rowPlaces {
	p := rowPlaces{relation: r, id: -1, topic: -1, event: -1, private: -1, insertedAt: -1, payload: -1, binary: -1}
	for i, c := range r.Columns {
		switch c.Name {
		case "id":
			p.id = i
		case "topic":
			p.topic = i
		case "event":
			p.event = i
		case "private":
			p.private = i
		case "inserted_at":
			p.insertedAt = i
		case "payload":
			p.payload = i
		case "binary_payload":
			p.binary = i
		}
	}
	return p
}

// broadcast makes a broadcast of a row, or says why it is none. maxPayload
// bounds the body in bytes.
func (p *rowPlaces) broadcast(row []sluice.Value, maxPayload int) (b sluice.Broadcast, problem string) {
	value := func(at int) ([]byte, bool) {
		if at < 0 || at >= len(row) || row[at].Kind != sluice.ValueText {
			return nil, false
		}
		return row[at].Text, true
	}
	topic, hasTopic := value(p.topic)
	b.Topic.Name = string(topic)
	id, hasID := value(p.id)
	event, hasEvent := value(p.event)
	private, hasPrivate := value(p.private)
	_, hasTime := value(p.insertedAt)
	switch {
	case !hasTopic:
		return b, "topic is null"
	case !hasEvent:
		return b, "event is null"
	case !hasPrivate:
		return b, "private is null"
	case !hasID:
		return b, "id is null"
	case !hasTime:
		return b, "inserted_at is null"
	}
	b.ID, b.Event = string(id), string(event)
	b.Topic.Private = string(private) == "t"
	b.Meta = appendRowMeta(nil, b.ID, false)
	if text, ok := value(p.binary); ok {
		// bytea_output is hex on the stream's connection.
		if len(text) < 2 || text[0] != '\\' || text[1] != 'x' {
			return b, "binary_payload is not in hexadecimal form"
		}
		b.Form, b.Payload = sluice.BroadcastBinary, make([]byte, hex.DecodedLen(len(text)-2))
		if _, err := hex.Decode(b.Payload, text[2:]); err != nil {
			return b, "binary_payload is not in hexadecimal form"
		}
	} else if b.Payload, ok = value(p.payload); ok {
		b.Form = sluice.BroadcastJSON
		if !validJSON(b.Payload) {
			return b, "payload is not JSON"
		}
	} else {
		return b, "payload and binary_payload are null"
	}
	if len(b.Payload) > maxPayload {
		return b, "payload is over the size limit"
	}
	return b, ""
}

// appendRowMeta appends the meta object of a row.
func appendRowMeta(dst []byte, id string, replayed bool) []byte {
	dst = phoenix.AppendString(append(dst, `{"id":`...), id)
	if replayed {
		dst = append(dst, `,"replayed":true`...)
	}
	return append(dst, '}')
}

// rowLog writes at most one line a minute for each text, with the number of
// lines that were left out. Texts are a fixed few.
type rowLog struct {
	// mu guards the rest.
	mu    sync.Mutex
	lines map[string]*rowLine
}

type rowLine struct {
	next time.Time
	left int
}

const rowLogEvery = time.Minute

func (l *rowLog) warn(log *slog.Logger, text, topic string, commit sluice.LSN) {
	l.mu.Lock()
	if l.lines == nil {
		l.lines = map[string]*rowLine{}
	}
	line := l.lines[text]
	if line == nil {
		line = &rowLine{}
		l.lines[text] = line
	}
	now := time.Now()
	left := line.left
	if now.Before(line.next) {
		line.left++
		l.mu.Unlock()
		return
	}
	line.next, line.left = now.Add(rowLogEvery), 0
	l.mu.Unlock()
	log.Warn(text, sluice.LogCode, "UnableToBroadcastChanges", sluice.LogTopic, topic, sluice.LogLSN, commit.String(), "left_out", left)
}
