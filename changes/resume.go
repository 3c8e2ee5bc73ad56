package changes

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/sluice-dev/sluice"
)

// begin makes a subscription live at start, or, for a client that goes on, has it
// sent first what it missed.
func (s *Service) begin(sub *subscription, req *sluice.ChangeSubscription, start sluice.LSN) {
	from, index := start, 0
	var before *place
	asked := false
	if r := req.Resume; r != nil {
		sub.conn = r.Conn
		if key, durable, ok := keyOfPlace(req.Claims, req.Topic, req.Bindings, r.Conn); ok {
			sub.place = &place{key: key, conn: r.Conn, durable: durable, names: sub.tables, ref: r.First}
			if from, before = s.places.take(key, r); before == nil {
				from = start
			}
		}
		asked = before != nil
		sub.before, sub.seen = r.Seen, slices.Clone(r.Seen)
		if r.From != 0 {
			from, index, asked = r.From, r.Index, true
		}
	}
	// A position behind the next commit is of a history that is not there any more.
	gap := asked && (from > start || !s.ring.reaches(from, sub.tables))
	if gap {
		from, index = start, 0
	}
	sub.start.Store(uint64(from))
	sub.done.Store(uint64(from))
	sub.since, sub.first = from, index
	if sub.place != nil { // on file before the client is told that it is subscribed
		sub.place.at = from
		if before != nil { // the client may lack what it was sent last
			sub.place.at = min(from, before.at)
		}
		s.places.open(sub.place, before, time.Now())
		s.flush()
	}
	if asked && !gap {
		s.resume(sub, req.Resume, from, index)
		return
	}
	if gap { // ahead of what comes behind it
		s.gap(sub, sluice.Refuse(sluice.CodeChangesGap))
	}
	sub.live.Store(true)
	s.index.add(sub)
}

// gap tells a client that it has missed what nobody can send it any more.
func (s *Service) gap(sub *subscription, r *sluice.Refusal) {
	s.metrics.Gaps.Add(1)
	if s.noisy.allow("gap " + sub.topic) { // a client that is too slow all the time gets one after the other
		s.log.Warn("changes that a client missed do not come any more", sluice.LogTopic, sub.topic, sluice.LogCode, r.Code, "text", r.Text)
	}
	sub.missed.Store(true)
	sub.report(r)
}

// resume starts to send what was missed, unless the service has ended.
func (s *Service) resume(sub *subscription, r *sluice.Resume, from sluice.LSN, index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	joined := time.Now()
	ctx, cancel := context.WithCancel(s.ctx)
	sub.stop = cancel
	s.resuming.Add(1)
	go func() { // ends when the subscription is live or closed, or with s.ctx; Run waits
		defer s.resuming.Done()
		defer cancel()
		s.replay(ctx, sub, r, from, index, joined)
	}()
}

// replay sends a subscription what it missed, decided anew with the claims and
// policies of now, and then makes it live. What is read and what comes live do not
// overlap: near the end of the ring, between two transactions, the subscription
// joins the index, and what comes from then on waits until the rest is read.
func (s *Service) replay(ctx context.Context, sub *subscription, r *sluice.Resume, from sluice.LSN, index int, joined time.Time) {
	select {
	case s.resumes <- struct{}{}:
		defer func() { <-s.resumes }()
	case <-ctx.Done():
		return
	}
	s.refresh(joined)
	const open = math.MaxUint64
	at, lost := s.ring.seek(from)
	if lost {
		s.gap(sub, sluice.Refuse(sluice.CodeChangesGap))
	}
	for end := uint64(open); ctx.Err() == nil; {
		if r.Room != nil && r.Room(ctx) != nil {
			return
		}
		jobs, next, gone, grown := s.ring.read(at, end, sub.wants)
		if gone { // told here, ahead of what comes behind the gap
			s.gap(sub, sluice.Refuse(sluice.CodeChangesGap))
		}
		if len(jobs) > 0 {
			s.send(ctx, sub, jobs, from, index)
			if ctx.Err() != nil {
				return
			}
			sub.done.Store(uint64(jobs[len(jobs)-1].commit))
		}
		stuck := next == at
		at = next
		if end == open {
			if e, ok := s.ring.goLive(at, sub.hold); ok {
				end = e
			} else if stuck { // in the middle of a transaction
				select {
				case <-grown:
				case <-ctx.Done():
				}
			}
		}
		if at < end {
			continue
		}
		if sub.release() {
			if !sub.missed.Load() {
				s.resumed(sub, from)
			}
			return
		}
		end = open // too much came meanwhile: it is read instead
	}
}

// hold is called when everything before start was sent or will be: from there on
// changes come live, and wait. After a restart the stream may begin again before what
// the client has.
func (sub *subscription) hold(start sluice.LSN) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.start.Store(uint64(max(start, sub.since)))
	sub.holding, sub.flooded = true, false
	if !sub.closed {
		sub.service.index.add(sub)
	}
}

// release sends what has waited; from then on the subscription is live. It reports
// false when that was too much: the subscription is out of the index again, and
// nothing that waited was sent.
func (sub *subscription) release() bool {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.flooded {
		sub.service.index.remove(sub)
		return false
	}
	for _, e := range sub.waiting {
		if !sub.closed {
			sub.hand(e)
		}
	}
	sub.holding, sub.waiting = false, nil
	sub.done.Store(sub.start.Load())
	sub.live.Store(true)
	return true
}

// refresh sees to it that what is known of tables and policies is not older than a
// client's return: the stream may tell of a change only later.
func (s *Service) refresh(joined time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.refreshed.After(joined) {
		s.refreshed = time.Now()
		s.catalog.invalidate(0) // before another sees that it was done
	}
}

// resumed tells the client that it has everything.
func (s *Service) resumed(sub *subscription, from sluice.LSN) {
	sub.mu.Lock()
	n := sub.sent
	sub.mu.Unlock()
	s.metrics.Resumes.Add(1)
	s.log.Debug("subscription resumed", sluice.LogTopic, sub.topic, sluice.LogLSN, from.String(), "changes", n)
	sub.report(sluice.Refuse(sluice.CodeChangesResumed).WithText("Resumed from %s, %d changes sent again or late", from, n))
}

// wants reports whether a binding is for a table.
func (sub *subscription) wants(rel *sluice.Relation) bool {
	return slices.ContainsFunc(sub.bounds, func(b *binding) bool { return b.covers(rel) })
}

// of returns the bindings for a table.
func (sub *subscription) of(rel *sluice.Relation) (out []*binding) {
	for _, b := range sub.bounds {
		if b.covers(rel) {
			out = append(out, b)
		}
	}
	return out
}

func (b *binding) covers(rel *sluice.Relation) bool {
	return (b.schema == "*" || b.schema == rel.Schema) && (b.table == "*" || b.table == rel.Name)
}

// send decides jobs for one subscription, those of a table together: order holds
// within a table. Of the transaction at from the changes before index are left out.
func (s *Service) send(ctx context.Context, sub *subscription, jobs []job, from sluice.LSN, index int) {
	before := sub.count()
	var order []*sluice.Relation
	byTable := map[*sluice.Relation][]job{}
	for _, j := range jobs {
		if j.commit == from && index > j.first {
			skip := min(index-j.first, len(j.changes))
			j.first, j.changes = j.first+skip, j.changes[skip:]
		}
		if len(j.changes) == 0 {
			continue
		}
		if byTable[j.rel] == nil {
			order = append(order, j.rel)
		}
		byTable[j.rel] = append(byTable[j.rel], j)
	}
	for _, rel := range order {
		t := &task{jobs: byTable[rel], bindings: sub.of(rel), replay: true}
		t.jobs[0].gen = s.catalog.generation() // the policies of now, not those of then
		s.process(ctx, t, 0)                   // its context alone can end it
	}
	s.metrics.Replayed.Add(int64(sub.count() - before))
}

func (sub *subscription) count() int {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.sent
}

// placesEvery is how often positions are noted and old ones forgotten.
const placesEvery = time.Second

// keepPlaces looks after positions until ctx ends.
func (s *Service) keepPlaces(ctx context.Context) {
	tick := time.NewTicker(placesEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.turn(now)
		case <-ctx.Done():
			s.turn(time.Now()) // what sockets said last
			return
		}
	}
}

// journalRoom is how large the journal may grow before it is written anew.
const journalRoom = 4 << 20

// turn expires and notes positions, and moves the floor only behind what is on
// file.
func (s *Service) turn(now time.Time) {
	oldest, durable := s.places.turn(now, s.settled())
	s.ring.trim(now, oldest)
	j := s.cfg.Journal
	if j == nil {
		return
	}
	if !s.flush() {
		return
	}
	s.floor.Store(uint64(durable))
	if j.length() > journalRoom {
		s.journaled(j.rewrite(s.places.snapshot))
	}
}

// flush writes the journal and reports whether it is whole.
func (s *Service) flush() bool {
	if s.cfg.Journal == nil {
		return true
	}
	return s.journaled(s.cfg.Journal.flush())
}

func (s *Service) journaled(err error) bool {
	if err == nil {
		return true
	}
	s.metrics.JournalErrors.Add(1)
	s.warn("journal", s.cfg.Journal.path, "positions are not kept over a restart", err)
	return false
}

// Lose notes, after Run has ended, that the positions of its clients mean nothing any
// more; what was broadcast from the database before mark is not broadcast again. Who
// comes back to the next Service is told of a gap.
func (s *Service) Lose(mark sluice.LSN) {
	s.places.lose(mark)
	if j := s.cfg.Journal; j != nil {
		s.journaled(j.rewrite(s.places.snapshot))
	}
}

// Kept is what a Service keeps for clients that may come back.
type Kept struct {
	Bytes   int // changes
	Held    int // subscriptions that ended and may be resumed
	Dropped int // and those that were forgotten because there were too many
}

// Kept returns what is kept now.
func (s *Service) Kept() Kept {
	held, dropped := s.places.counts()
	return Kept{Bytes: s.ring.size(), Held: held, Dropped: dropped}
}
