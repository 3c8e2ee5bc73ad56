package changes

import (
	"sort"
	"sync"
	"time"

	"github.com/sluice-dev/sluice"
)

// job is a run of changes of one table in one transaction.
type job struct {
	commit  sluice.LSN
	first   int       // index of the first change in the transaction
	time    time.Time // of the commit
	xid     uint64
	rel     *sluice.Relation
	gen     uint64 // the catalog's generation when the changes came by
	changes []sluice.Change
	bytes   int // what they take, about
}

// newJob makes a job of the changes from i to n of a batch.
func newJob(b *sluice.ChangeBatch, gen uint64, i, n int) job {
	changes := b.Changes[i:n]
	j := job{commit: b.Commit, first: b.First + i, time: b.CommitTime, xid: b.XID, rel: changes[0].Relation, gen: gen, changes: changes}
	for i := range changes {
		for _, t := range [2][]sluice.Value{changes[i].New, changes[i].Old} {
			j.bytes += 64
			for _, v := range t {
				j.bytes += 32 + len(v.Text)
			}
		}
	}
	return j
}

// bounds are what may wait in a queue. The job that goes over them is the last.
type bounds struct{ jobs, changes, bytes int }

// queue is the work that waits for one worker, in commit order. One goroutine
// takes from it.
type queue struct {
	bounds bounds        // fixed
	filled chan struct{} // holds a token when jobs were added
	freed  chan struct{} // holds a token when jobs were taken

	// guarded by mu
	mu      sync.Mutex
	jobs    []job
	changes int
	bytes   int
}

func newQueue(b bounds) *queue {
	return &queue{bounds: b, filled: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
}

// signal leaves a token, if there is none.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// offer adds a job, unless the queue is full.
func (q *queue) offer(j job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.jobs) >= q.bounds.jobs || q.changes >= q.bounds.changes || q.bytes >= q.bounds.bytes {
		return false
	}
	q.jobs = append(q.jobs, j)
	q.changes += len(j.changes)
	q.bytes += j.bytes
	signal(q.filled)
	return true
}

// put adds jobs whether there is room or not.
func (q *queue) put(jobs []job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range jobs {
		q.jobs = append(q.jobs, jobs[i])
		q.changes += len(jobs[i].changes)
		q.bytes += jobs[i].bytes
	}
	signal(q.filled)
}

// take takes what one run decides, see head; nil when nothing waits.
func (q *queue) take() []job {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head()
}

// extract removes all jobs of one table.
func (q *queue) extract(oid uint32) []job {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.remove(func(j *job) bool { return j.rel.OID == oid })
}

// halve removes the older half of what waits.
func (q *queue) halve() []job {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := (len(q.jobs) + 1) / 2
	return q.remove(func(*job) bool { n--; return n >= 0 })
}

// remove takes out the jobs that which tells, asked in order.
func (q *queue) remove(which func(*job) bool) []job {
	var out []job
	rest := q.jobs[:0]
	for i := range q.jobs {
		j := q.jobs[i]
		if !which(&j) {
			rest = append(rest, j)
			continue
		}
		out = append(out, j)
		q.changes -= len(j.changes)
		q.bytes -= j.bytes
	}
	clear(q.jobs[len(rest):])
	q.jobs = rest
	if out != nil {
		signal(q.freed)
	}
	return out
}

// head removes the first job and what waits behind it of the same table, as far
// as it can be decided with it: under one description of the table and one
// generation of the catalog, within the bounds of a batch. Ten transactions that
// came while the worker was busy cost one round trip, not ten.
func (q *queue) head() []job {
	if len(q.jobs) == 0 {
		return nil
	}
	first := q.jobs[0]
	oid, rel, gen, commit := first.rel.OID, first.rel, first.gen, first.commit
	changes, bytes, ended := 0, 0, false
	return q.remove(func(j *job) bool {
		if ended || j.rel.OID != oid {
			return false
		}
		fits := changes == 0 || changes+len(j.changes) <= sluice.MaxBatchChanges && bytes+j.bytes <= sluice.MaxBatchBytes
		if ended = j.rel != rel || j.gen != gen || j.commit < commit || !fits; ended {
			return false // what comes behind it must not overtake it
		}
		commit = j.commit
		changes += len(j.changes)
		bytes += j.bytes
		return true
	})
}

// depth returns how many changes wait.
func (q *queue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.changes
}

// unsettled are the commits with jobs that are not done, in order.
type unsettled struct {
	mu      sync.Mutex
	commits []openCommit
}

type openCommit struct {
	commit sluice.LSN
	jobs   int
}

// add notes a job. Commits come in order, but for what the stream repeats.
func (u *unsettled) add(c sluice.LSN) {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := len(u.commits)
	for i > 0 && u.commits[i-1].commit > c {
		i--
	}
	if i > 0 && u.commits[i-1].commit == c {
		u.commits[i-1].jobs++
		return
	}
	u.commits = append(u.commits, openCommit{})
	copy(u.commits[i+1:], u.commits[i:])
	u.commits[i] = openCommit{c, 1}
}

// done takes jobs back that were decided, or given up.
func (u *unsettled) done(jobs ...job) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, j := range jobs {
		i := sort.Search(len(u.commits), func(i int) bool { return u.commits[i].commit >= j.commit })
		u.commits[i].jobs--
	}
	n := 0
	for n < len(u.commits) && u.commits[n].jobs == 0 {
		n++
	}
	u.commits = u.commits[n:]
}

// before returns the position of the first commit that is not settled, at most
// handed.
func (u *unsettled) before(handed sluice.LSN) sluice.LSN {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.commits) > 0 {
		return min(handed, u.commits[0].commit)
	}
	return handed
}
