package realtime

import (
	"context"
	_ "embed"
	"slices"
	"sync"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

//go:embed sql/replay.sql
var replaySQL string

// replay is a channel's request for what was broadcast from the database before
// it joined. The channel is on its topic, held, before the rows are read, so
// that nothing is missed in between; what comes live meanwhile waits behind the
// join reply and the replayed rows, those rows themselves left out.
type replay struct {
	// fixed after join
	params  phoenix.Replay
	refusal *sluice.Refusal // what is wrong with the request, nil if nothing

	// owned by the join: oldest first
	rows []sluice.Broadcast

	// guarded by mu
	mu    sync.Mutex
	had   []string // ids of the rows, for the channel's life; at most MaxReplay
	live  bool
	full  bool // more came than can wait
	held  []heldFrame
	bytes int
}

type heldFrame struct {
	id    string
	frame []byte
}

const textPublicReplay = "Replay is not allowed for public channels"

// prepareReplay reads the parameters. What is wrong with them is said by load,
// behind the check whether the channel may read at all. A replay that is no
// object is ignored on private channels, as the original does.
func (ch *channel) prepareReplay(j phoenix.Join) {
	if j.Replay == nil || ch.key.Private && !phoenix.IsObject(j.Replay) {
		return
	}
	ch.replay = &replay{}
	if !ch.key.Private {
		ch.replay.refusal = sluice.Refuse(sluice.CodeUnableToReplay).WithText(textPublicReplay).
			WithRemedy("Join the channel with private: true, or without replay.")
		return
	}
	var err error
	if ch.replay.params, err = phoenix.ParseReplay(j.Replay); err != nil {
		ch.replay.refusal = sluice.Refuse(sluice.CodeUnableToReplay).WithText("%s", err).
			WithRemedy("since is a time in whole milliseconds since 1970, limit a whole number up to %d.", phoenix.MaxReplay)
	}
}

// load puts the channel on its topic, held, and reads what to replay. It blocks
// on the database. Whatever it returns, the end of the join takes a channel that
// was not accepted off its topic again.
func (ch *channel) load(ctx context.Context) *sluice.Refusal {
	srv := ch.conn.srv
	switch {
	case ch.replay.refusal != nil:
		return ch.replay.refusal
	case srv.cfg.Admin == nil:
		return sluice.Refuse(sluice.CodeUnableToReplay)
	}
	srv.hub.hold(ch)
	ctx, cancel := context.WithTimeout(ctx, srv.cfg.ReplayTimeout)
	defer cancel()
	rows, err := srv.readReplay(ctx, ch.key.Name, ch.replay.params)
	if err != nil {
		return sluice.Refuse(sluice.CodeUnableToReplay).WithCause(err)
	}
	ch.replay.rows = rows
	return nil
}

// readReplay returns the newest rows that params ask for, oldest first. Rows
// that together would fill half of a socket's queue are cut off at the old end:
// the client could never take them.
func (s *Server) readReplay(ctx context.Context, topic string, params phoenix.Replay) ([]sluice.Broadcast, error) {
	rows, err := s.cfg.Admin.Query(ctx, replaySQL, topic, params.Since, params.Limit, s.cfg.maxPayload())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []sluice.Broadcast
	bytes := 0
	for rows.Next() {
		var payload *string
		b := sluice.Broadcast{Topic: sluice.Topic{Name: topic, Private: true}, Form: sluice.BroadcastJSON}
		var binary []byte
		if err := rows.Scan(&b.ID, &b.Event, &payload, &binary); err != nil {
			return nil, err
		}
		b.Payload = binary
		if payload != nil {
			b.Payload = []byte(*payload)
		} else {
			b.Form = sluice.BroadcastBinary
		}
		if bytes += len(b.Payload); bytes > s.cfg.QueueBytes/2 && len(out) > 0 {
			s.log.Info("replay cut short: the rows are too large", sluice.LogTopic, topic, "rows", len(out))
			break
		}
		b.Meta = appendRowMeta(nil, b.ID, true)
		out = append(out, b)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, err
	}
	slices.Reverse(out)
	return out, nil
}

// sendReplay sends the replayed rows behind the join reply, then what has come
// live meanwhile. The topic is locked.
func (ch *channel) sendReplay() {
	r := ch.replay
	if r == nil {
		return
	}
	m := &ch.conn.srv.metrics
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.rows {
		b := &r.rows[i]
		r.had = append(r.had, b.ID)
		buf, binary, err := phoenix.AppendReplayed(newPayload(len(ch.topic)+len(b.Event)+len(b.Payload)+128), ch.conn.vsn, ch.joinRef, ch.topic, b)
		if err != nil {
			m.DroppedUnencodable.Add(1)
			continue
		}
		op := ws.OpText
		if binary {
			op = ws.OpBinary
		}
		m.Replayed.Add(1)
		ch.conn.send(newFrame(buf, op))
	}
	r.live, r.rows = true, nil
	for _, h := range r.held {
		ch.sendOnce(h.id, h.frame)
	}
	r.held, r.bytes = nil, 0
}

// deliver queues a broadcast for the channel's socket. id is the row's, if it
// has one. Called with the topic locked for reading.
func (ch *channel) deliver(id string, frame []byte) {
	r := ch.replay
	if r == nil {
		ch.conn.send(frame)
		return
	}
	cfg := &ch.conn.srv.cfg
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.live:
		ch.sendOnce(id, frame)
	case r.full:
	case len(r.held) > 0 && r.bytes+len(frame) > cfg.QueueBytes/2, len(r.held) >= cfg.QueueFrames/2:
		// The client must not believe that it has had everything.
		r.full, r.held = true, nil
		ch.conn.slow("too many broadcasts before the join reply")
	default:
		r.held = append(r.held, heldFrame{id, frame})
		r.bytes += len(frame)
	}
}

// sendOnce sends a frame unless the channel had its row by replay. Called with
// the replay's mu held.
func (ch *channel) sendOnce(id string, frame []byte) {
	if id != "" && slices.Contains(ch.replay.had, id) {
		ch.conn.srv.metrics.DroppedReplayed.Add(1)
		return
	}
	ch.conn.send(frame)
}
