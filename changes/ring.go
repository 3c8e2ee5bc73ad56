package changes

import (
	"sort"
	"sync"
	"time"

	"github.com/sluice-dev/sluice"
)

// ring is the changes that came last, of the tables that somebody listens to or
// may come back for. A client that was away for a moment is served from it.
type ring struct {
	max  int           // bytes
	keep time.Duration // a table after its last listener, a change after it came

	mu    sync.Mutex
	items []ringItem // in commit order
	base  uint64     // number of items[0]
	bytes int
	floor sluice.LSN // what committed before it is not here
	last  sluice.LSN // the transaction that came last, kept or not
	next  int        // index of its next change
	whole bool       // and nothing of it is to come
	begun bool       // floor is known
	kept  map[tableName]*keptTable
	grown chan struct{} // closed and replaced when something came
}

type ringItem struct {
	job
	came time.Time
}

// keptTable is a name under which changes are wanted.
type keptTable struct {
	since sluice.LSN // all that committed at or after it
	open  int        // subscriptions
	until time.Time  // with none left
}

func newRing(limit int, keep time.Duration) *ring {
	return &ring{max: limit, keep: keep, whole: true, kept: map[tableName]*keptTable{}, grown: make(chan struct{})}
}

// want keeps the changes of some tables until release. What committed before is
// perhaps not there: see reaches.
func (r *ring) want(names []tableName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		k := r.kept[n]
		if k == nil {
			k = &keptTable{since: r.last + 1}
			if r.last == 0 { // nothing has gone by
				k.since = 0
			}
			r.kept[n] = k
		}
		k.open++
	}
}

// release undoes want; the changes are kept for a while.
func (r *ring) release(names []tableName, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		k := r.kept[n]
		k.open--
		k.until = now.Add(r.keep)
	}
}

// wanted reports whether somebody listens to a table, or may come back for it.
func (r *ring) wanted(schema, table string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isWanted(schema, table)
}

func (r *ring) isWanted(schema, table string) bool {
	for _, n := range names(schema, table) {
		if r.kept[n] != nil {
			return true
		}
	}
	return false
}

// reaches reports whether everything that committed at or after from, of these
// tables, is here or will come.
func (r *ring) reaches(from sluice.LSN, tables []tableName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from < r.floor {
		return false
	}
	for _, t := range tables {
		ok := false
		for _, n := range names(t.schema, t.table) {
			k := r.kept[n]
			ok = ok || k != nil && k.since <= from
		}
		if !ok {
			return false
		}
	}
	return true
}

// begin notes from where the stream is read. Behind a gap nothing can be resumed
// that is older.
func (r *ring) begin(from sluice.LSN, gap bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !gap && r.begun {
		return
	}
	r.begun = true
	if gap {
		r.base += uint64(len(r.items)) + 1       // whoever has read everything notices too
		r.items, r.bytes, r.whole = nil, 0, true // what is cut off has no end
		r.wake()
	}
	r.floor = max(r.floor, from)
}

// enter notes that a batch comes by: a table that is wanted from now on misses the
// part of its transaction that was looked at already.
func (r *ring) enter(b *sluice.ChangeBatch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.Commit > r.last {
		r.last, r.next, r.whole = b.Commit, 0, false
	}
}

// add keeps a job, unless the stream repeats it.
func (r *ring) add(j job, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if j.commit < r.last || j.commit == r.last && j.first < r.next {
		return
	}
	r.next = j.first + len(j.changes)
	r.items = append(r.items, ringItem{j, now})
	r.bytes += j.bytes
	for r.bytes > r.max {
		r.drop()
	}
	r.wake()
}

// passed notes that everything of a batch has come by.
func (r *ring) passed(b *sluice.ChangeBatch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.Commit != r.last {
		return
	}
	r.next, r.whole = max(r.next, b.First+len(b.Changes)), r.whole || b.Last
	r.wake()
}

func (r *ring) wake() {
	close(r.grown)
	r.grown = make(chan struct{})
}

// drop forgets the oldest change. Called with mu held.
func (r *ring) drop() {
	r.floor = max(r.floor, r.items[0].commit+1)
	r.bytes -= r.items[0].bytes
	r.items[0] = ringItem{}
	r.items = r.items[1:]
	r.base++
}

// trim forgets what came too long ago and committed before oldest, which is where
// somebody may still resume, and tables that nobody comes back for.
func (r *ring) trim(now time.Time, oldest sluice.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, k := range r.kept {
		if k.open == 0 && now.After(k.until) {
			delete(r.kept, n)
		}
	}
	for len(r.items) > 0 && now.Sub(r.items[0].came) > r.keep && (oldest == 0 || r.items[0].commit < oldest) {
		r.drop()
	}
}

// seek returns the number of the first change that committed at or after from. lost
// is set when some of those have been forgotten, as they may be at any time after
// reaches.
func (r *ring) seek(from sluice.LSN) (at uint64, lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.base + uint64(sort.Search(len(r.items), func(i int) bool { return r.items[i].commit >= from })), from < r.floor
}

// Bounds of what one look into the ring gives.
const (
	readItems   = 1024 // looked at
	readChanges = sluice.MaxBatchChanges
	readBytes   = sluice.MaxBatchBytes
)

// read returns jobs in commit order, from number at on
// and before end, and where to go on. lost is set when the ring has forgotten what was asked for. With
// no jobs and next equal to at nothing is there yet; grown then tells when.
func (r *ring) read(at, end uint64, wants func(*sluice.Relation) bool) (jobs []job, next uint64, lost bool, grown <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at < r.base {
		return nil, r.base, true, nil
	}
	changes, bytes := 0, 0
	next = at
	for looked := 0; looked < readItems && next < end && next-r.base < uint64(len(r.items)); looked++ {
		j := r.items[next-r.base].job
		if wants(j.rel) {
			if len(jobs) > 0 && (changes+len(j.changes) > readChanges || bytes+j.bytes > readBytes) {
				break
			}
			jobs = append(jobs, j)
			changes += len(j.changes)
			bytes += j.bytes
		}
		next++
	}
	return jobs, next, false, r.grown
}

// latest returns up to n changes of a table that which tells, each as a job of its own,
// the latest first.
func (r *ring) latest(schema, table string, n int, which func(*job, int) bool) (out []job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := len(r.items) - 1; k >= 0 && len(out) < n; k-- {
		j := &r.items[k].job
		if j.rel.Schema != schema || j.rel.Name != table {
			continue
		}
		for i := len(j.changes) - 1; i >= 0 && len(out) < n; i-- {
			if which(j, i) {
				one := *j
				one.first, one.changes = j.first+i, j.changes[i:i+1]
				out = append(out, one)
			}
		}
	}
	return out
}

// nearEnd is how far before the end of the ring a reader may go live.
const nearEnd = 256

// goLive calls live with the position behind everything that came, and returns the
// end of the ring, if at is near it and no transaction is under way: what comes then
// is handed to the workers, and nothing of what is here.
func (r *ring) goLive(at uint64, live func(start sluice.LSN)) (end uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	end = r.base + uint64(len(r.items))
	if !r.whole || at+nearEnd < end {
		return 0, false
	}
	live(r.last + 1)
	return end, true
}

// size returns the bytes kept.
func (r *ring) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}
