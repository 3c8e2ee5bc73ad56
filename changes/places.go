package changes

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/sluice-dev/sluice"
)

// placeKey tells apart who may resume what: a hash over session, user, role,
// topic and bindings.
type placeKey [16]byte

// place is how far the client of one subscription has got.
type place struct {
	// fixed after open
	id      uint64
	key     placeKey
	conn    int64 // 0 after a restart
	names   []tableName
	durable bool // in the journal

	// guarded by places.mu
	ref     uint64     // the highest number of the client's messages
	at      sluice.LSN // 0: lost, its client is told of the gap
	noted   bool       // ref and at are in the journal
	moved   time.Time  // when at was last moved, or a restart
	heldAt  time.Time  // when its subscription ended, zero while it lives
	expired bool       // kept to tell its client of the gap, no more
	taken   bool       // its client is back, and about to be noted
}

// places are the positions of the subscriptions that may be resumed: of those that
// live, and of those that ended a moment ago.
type places struct {
	// fixed after newPlaces
	grace   time.Duration
	max     int      // that are held
	journal *Journal // nil without one

	mu     sync.Mutex
	byKey  map[placeKey][]*place
	held   []*place // by heldAt; those that were taken have key zero
	lastID uint64
	live   int
	gone   int // held ones that were forgotten for want of room
	mark   sluice.LSN
}

func newPlaces(grace time.Duration, limit int, journal *Journal, now time.Time) *places {
	p := &places{grace: grace, max: limit, journal: journal, byKey: map[placeKey][]*place{}}
	if journal == nil {
		return p
	}
	for i := range journal.places {
		pl := &journal.places[i]
		pl.durable, pl.noted, pl.moved, pl.heldAt, pl.expired = true, true, now, now, pl.at == 0
		p.lastID = max(p.lastID, pl.id)
		p.byKey[pl.key] = append(p.byKey[pl.key], pl)
		p.held = append(p.held, pl)
	}
	p.mark = journal.mark
	return p
}

// keyOfPlace returns the key of a subscription and whether it is good on another
// socket: without a session two devices of one user look alike. ok is false for
// nobody's token.
func keyOfPlace(c sluice.Claims, topic string, bindings []sluice.ChangeBinding, conn int64) (key placeKey, durable, ok bool) {
	if c.Subject == "" {
		return key, false, false
	}
	h := sha256.New()
	part := func(s []byte) {
		h.Write(binary.AppendUvarint(nil, uint64(len(s))))
		h.Write(s)
	}
	durable = c.SessionID != ""
	part([]byte(c.SessionID))
	if !durable {
		h.Write(binary.AppendVarint(nil, conn))
	}
	for _, s := range []string{c.Subject, c.Role, topic} {
		part([]byte(s))
	}
	for _, b := range bindings {
		part(b.Params)
	}
	copy(key[:], h.Sum(nil))
	return key, durable, true
}

// nearRefs is how many messages a client may have sent into a socket that was dead
// already. Tabs that share a session and count so closely may mistake one another's
// place for their own; each then goes on from the older one.
const nearRefs = 32

// take returns the position from which a client goes on, and the place that it
// held, nil when it begins anew. That is its own from then on and not given out
// again, but counts until the client has its new one (open). One that lives still
// (the old socket is dead, and nobody has noticed) stays.
func (p *places) take(key placeKey, r *sluice.Resume) (at sluice.LSN, found *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *place
	for _, pl := range p.byKey[key] {
		if pl.fits(r) && (best == nil || pl.better(best)) {
			best = pl
		}
	}
	if best == nil {
		return 0, nil
	}
	at = best.at
	for _, pl := range p.byKey[key] {
		if pl != best && pl.fits(r) && !pl.expired && pl.ref+nearRefs >= best.ref {
			at = min(at, pl.at)
		}
	}
	for _, pl := range p.byKey[key] {
		if pl != best && pl.fits(r) && !pl.heldAt.IsZero() && pl.ref+nearRefs >= best.ref {
			pl.at, pl.noted = min(pl.at, at), false
		}
	}
	best.taken = !best.heldAt.IsZero()
	return at, best
}

// fits reports whether a client may go on from the place: it has counted on, or is
// on the same socket.
func (pl *place) fits(r *sluice.Resume) bool {
	if pl.taken {
		return false
	}
	return pl.conn != 0 && pl.conn == r.Conn && !pl.heldAt.IsZero() || r.First > pl.ref && pl.durable && pl.conn != r.Conn
}

// better reports whether the place is the likelier one.
func (pl *place) better(than *place) bool {
	if pl.ref != than.ref {
		return pl.ref > than.ref
	}
	return pl.at < than.at
}

// open notes a subscription that lives, in place of the one that it goes on from.
func (p *places) open(pl, before *place, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastID++
	pl.id, pl.moved, pl.noted = p.lastID, now, true
	p.live++
	p.byKey[pl.key] = append(p.byKey[pl.key], pl)
	if record := appendOpen(pl); p.journal != nil && pl.durable && len(record) <= maxRecord {
		p.journal.append(record)
	}
	if before != nil && before.taken {
		p.forget(before)
	}
}

// rekey gives a place to another identity of its client.
func (p *places) rekey(pl *place, key placeKey, durable bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pl.key == key || pl.key == (placeKey{}) {
		return
	}
	p.forget(pl)
	if key == (placeKey{}) { // nobody's token: it is not resumed any more
		return
	}
	p.lastID++
	pl.id, pl.key, pl.durable, pl.noted = p.lastID, key, durable, true
	p.byKey[key] = append(p.byKey[key], pl)
	if p.journal != nil && durable {
		p.journal.append(appendOpen(pl))
	}
}

// confirm moves a place on.
func (p *places) confirm(pl *place, at sluice.LSN, ref uint64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at > pl.at {
		pl.at, pl.noted, pl.moved = at, false, now
	}
	if ref > pl.ref {
		pl.ref, pl.noted = ref, false
	}
}

// confirmed returns how far a client has got.
func (p *places) confirmed(pl *place) sluice.LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	return pl.at
}

// hold keeps the place of a subscription that has ended.
func (p *places) hold(pl *place, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live--
	pl.heldAt = now
	p.held = append(p.held, pl)
	if len(p.held) > 2*p.max {
		p.compact()
	}
	for n := len(p.held) - p.max; n > 0 && len(p.held) > p.max; n-- {
		if p.held[0].key != (placeKey{}) {
			p.gone++
			p.forget(p.held[0])
		}
		p.held = p.held[1:]
	}
}

// compact drops the held places that were taken. Called with mu held.
func (p *places) compact() {
	p.held = slices.DeleteFunc(p.held, func(pl *place) bool { return pl.key == placeKey{} })
}

// close forgets a subscription that its client has left.
func (p *places) close(pl *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live--
	p.forget(pl)
}

// forget drops a place. Called with mu held.
func (p *places) forget(pl *place) {
	list := slices.DeleteFunc(p.byKey[pl.key], func(other *place) bool { return other == pl })
	if len(list) == 0 {
		delete(p.byKey, pl.key)
	} else {
		p.byKey[pl.key] = list
	}
	pl.key = placeKey{} // for held
	if p.journal != nil && pl.durable {
		p.journal.append(appendGone(pl.id))
	}
}

// Places are kept, without holding anything back, for so many times the grace
// time: whoever comes back then is told of the gap.
const tombstones = 10

// turn expires what was held too long, puts what has moved into the journal and
// returns the oldest position that somebody may come back to, 0 without one, and
// the oldest that the journal may be asked for after a restart.
func (p *places) turn(now time.Time, settled sluice.LSN) (oldest, durable sluice.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.compact()
	var records [][]byte
	for _, list := range p.byKey {
		for _, pl := range list {
			// A client that answers no ping does not hold anything back for ever.
			since := pl.moved
			if !pl.heldAt.IsZero() {
				since = pl.heldAt
			}
			pl.expired = pl.at == 0 || now.Sub(since) > p.grace && (!pl.heldAt.IsZero() || pl.at < settled)
			if !pl.noted && pl.durable && p.journal != nil {
				pl.noted = true
				records = append(records, appendPlace(pl))
			}
			if pl.expired {
				continue
			}
			if oldest == 0 || pl.at < oldest {
				oldest = pl.at
			}
			if pl.durable && (durable == 0 || pl.at < durable) {
				durable = pl.at
			}
		}
	}
	for len(p.held) > 0 && now.Sub(p.held[0].heldAt) > tombstones*p.grace {
		p.forget(p.held[0])
		p.held = p.held[1:]
	}
	if p.journal != nil {
		if settled > p.mark {
			p.mark = settled
			records = append(records, appendMark(settled))
		}
		p.journal.append(records...)
	}
	return oldest, durable
}

// lose makes all positions mean nothing, and mark what was handed on before.
func (p *places) lose(mark sluice.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, list := range p.byKey {
		for _, pl := range list {
			pl.at, pl.noted, pl.expired = 0, false, true
		}
	}
	p.mark = mark
}

// snapshot returns the journal's text for everything that is kept, in place of
// what waits to be written.
func (p *places) snapshot() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.journal.take()
	var text []byte
	for _, list := range p.byKey {
		for _, pl := range list {
			if record := appendOpen(pl); pl.durable && len(record) <= maxRecord {
				text = appendFrame(text, record)
			}
		}
	}
	return appendFrame(text, appendMark(p.mark))
}

// counts returns how many places are held and may be resumed, and how many were
// forgotten for want of room.
func (p *places) counts() (held, gone int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pl := range p.held {
		if !pl.expired && pl.key != (placeKey{}) {
			held++
		}
	}
	return held, p.gone
}
