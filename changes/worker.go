package changes

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-dev/sluice"
)

// Bounds of what waits for one worker.
const (
	queueChanges = 4096
	queueBytes   = 8 << 20
)

// maxOwn bounds the workers of single tables.
const maxOwn = 32

// workers are the queues of the changes: a fixed number, shared by tables, and
// one for each table that has shown to be slow.
type workers struct {
	// fixed
	shared []*queue
	// slots are the questions that own workers may have under way at once: the
	// pool's other connections are left to the shared ones.
	slots chan struct{}

	// guarded by mu, which comes before a queue's
	mu    sync.Mutex
	group *errgroup.Group
	own   map[uint32]*ownWorker
}

// ownWorker is the worker of one table.
type ownWorker struct {
	// fixed
	oid   uint32
	table string
	queue *queue
	first *task // what it takes over; nil: nothing

	slowAt time.Time // owned by its goroutine

	// busy is since when a run is under way, the time in which the database was
	// away left out; zero: none is. Guarded by the workers' mu.
	busy time.Time
}

func newWorkers(cfg *Config) *workers {
	w := &workers{own: map[uint32]*ownWorker{}, slots: make(chan struct{}, max(1, cfg.User.Config().MaxConns/3))}
	for range cfg.Workers {
		w.shared = append(w.shared, newQueue(bounds{cfg.QueueJobs, queueChanges, queueBytes}))
	}
	return w
}

func (w *workers) start(g *errgroup.Group) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.group = g
}

// task is the work on jobs that one run can decide. It can be taken up again
// where it was left.
type task struct {
	jobs     []job
	bindings []*binding // that are still to be served; nil: those of everybody
	from     map[*subscription]int
	replay   bool // for one subscription, which has missed it
}

// enqueue gives a job to the worker of its table, once that has room. For a table
// with a worker of its own room is made, once that is stuck: what comes all at
// once, or while the database is away, is no fault of a policy.
func (s *Service) enqueue(ctx context.Context, j job) error {
	s.open.add(j.commit)
	for {
		given, freed, stuck := s.place(j)
		s.giveUp(given)
		if freed == nil {
			return nil
		}
		select {
		case <-freed:
		case <-stuck:
		case <-ctx.Done():
			s.open.done(j) // the stream brings it again
			return ctx.Err()
		}
	}
}

// place puts a job into its queue and returns what had to make room for it, or
// what to wait for: room, or the time at which it will be made.
func (s *Service) place(j job) (given []job, freed <-chan struct{}, stuck <-chan time.Time) {
	s.workers.mu.Lock()
	defer s.workers.mu.Unlock()
	o := s.workers.own[j.rel.OID]
	if o == nil {
		q := s.workers.shared[j.rel.OID%uint32(len(s.workers.shared))]
		if !q.offer(j) {
			return nil, q.freed, nil
		}
		return nil, nil, nil
	}
	for !o.queue.offer(j) {
		if o.busy.IsZero() || s.Away() {
			return given, o.queue.freed, nil
		}
		if left := s.cfg.SlowRun - time.Since(o.busy); left > 0 {
			return given, o.queue.freed, time.After(left)
		}
		given = append(given, o.queue.halve()...)
	}
	return given, nil, nil
}

// work is a shared worker.
func (s *Service) work(ctx context.Context, q *queue) {
	for ctx.Err() == nil {
		jobs := q.take()
		if jobs == nil {
			select {
			case <-q.filled:
			case <-ctx.Done():
			}
			continue
		}
		t := &task{jobs: jobs}
		switch s.process(ctx, t, s.cfg.SlowRun) {
		case processed:
			s.open.done(jobs...)
		case timedOut:
			s.open.done(jobs...)
			s.giveOwn(ctx, q, jobs[0].rel, nil)
		case tooSlow:
			if s.giveOwn(ctx, q, jobs[0].rel, t) {
				continue // it is the table's own worker's now
			}
			if s.process(ctx, t, 0) != stopped {
				s.open.done(jobs...)
			}
		}
	}
}

// giveOwn gives a table a worker of its own, with what waits of it in q, behind
// t. It reports false when there are too many.
func (s *Service) giveOwn(ctx context.Context, q *queue, rel *sluice.Relation, t *task) bool {
	o := &ownWorker{
		oid: rel.OID, table: rel.Schema + "." + rel.Name, first: t, slowAt: time.Now(),
		queue: newQueue(bounds{s.cfg.OwnChanges, s.cfg.OwnChanges, queueBytes}),
	}
	w := s.workers
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.own) >= maxOwn {
		if s.noisy.allow("own workers") {
			s.log.Warn("too many tables are slow to decide; one more stays with others", sluice.LogTable, o.table)
		}
		return false
	}
	s.log.Warn("the policies of a table are slow; it gets a worker of its own", sluice.LogTable, o.table)
	o.queue.put(q.extract(o.oid))
	w.own[o.oid] = o
	w.group.Go(func() error { s.workOwn(ctx, o); return nil })
	return true
}

// workOwn is the worker of one table. It ends, and the table goes back to a
// shared one, when it has not been slow for a while.
func (s *Service) workOwn(ctx context.Context, o *ownWorker) {
	t := o.first
	o.first = nil
	quiet := time.NewTimer(s.cfg.QuietTime)
	defer quiet.Stop()
	for ctx.Err() == nil {
		if t == nil {
			if jobs := o.queue.take(); jobs != nil {
				t = &task{jobs: jobs}
			}
		}
		if t == nil {
			left := s.cfg.QuietTime - time.Since(o.slowAt)
			if left <= 0 && s.takeBack(o) {
				return
			}
			quiet.Reset(max(left, 0))
			select {
			case <-o.queue.filled:
			case <-quiet.C:
			case <-ctx.Done():
			}
			continue
		}
		start := time.Now()
		s.workers.setBusy(o, start)
		how := s.process(ctx, t, 0)
		s.workers.setBusy(o, time.Time{})
		if how == stopped {
			return
		}
		s.open.done(t.jobs...)
		t = nil
		if now := time.Now(); how == timedOut || now.Sub(start) >= s.cfg.SlowRun {
			o.slowAt = now
		}
	}
}

// setBusy notes the begin of a run, or its end. Either makes Handle look again.
func (w *workers) setBusy(o *ownWorker, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o.busy = since
	signal(o.queue.freed)
}

// takeBack gives the table back to its shared worker, if nothing waits.
func (s *Service) takeBack(o *ownWorker) bool {
	w := s.workers
	w.mu.Lock()
	defer w.mu.Unlock()
	if o.queue.depth() > 0 {
		return false
	}
	delete(w.own, o.oid)
	s.log.Info("a table's policies are no longer slow; it goes back to a shared worker", sluice.LogTable, o.table)
	return true
}

// giveUp drops changes of a table whose policies are too slow, loudly.
func (s *Service) giveUp(jobs []job) {
	if len(jobs) == 0 {
		return
	}
	rel, n, last := jobs[0].rel, 0, jobs[len(jobs)-1].commit
	for i := range jobs {
		n += len(jobs[i].changes)
	}
	s.open.done(jobs...)
	s.metrics.GivenUp.Add(int64(n))
	table := rel.Schema + "." + rel.Name
	if s.noisy.allow("given up " + table) {
		s.log.Error("changes were given up: the table's policies are too slow for them", sluice.LogTable, table, sluice.LogCode, sluice.CodePolicyTimeout,
			sluice.LogLSN, last.String(), "changes", n, "given_up_in_all", s.metrics.GivenUp.Load())
	}
	r := sluice.Refuse(sluice.CodePolicyTimeout).WithText("Changes of %s were given up: its policies take too long", table)
	for _, sub := range s.losers(jobs, nil) {
		sub.tell(table, r)
	}
}

// losers returns the subscriptions that perhaps want changes of one table, which
// do not come; bindings are whom they were for, nil for everybody.
func (s *Service) losers(jobs []job, bindings []*binding) (out []*subscription) {
	rel, last := jobs[0].rel, jobs[len(jobs)-1].commit
	kinds := map[sluice.ChangeKind]bool{}
	for i := range jobs {
		for k := range jobs[i].changes {
			kinds[jobs[i].changes[k].Kind] = true
		}
	}
	replay, seen := bindings != nil, map[*subscription]bool{}
	if !replay {
		bindings = s.index.find(rel.Schema, rel.Name)
	}
	for _, b := range bindings {
		wants := kinds[b.event] || b.event == 0 || b.left && kinds[sluice.ChangeUpdate]
		if (replay || sluice.LSN(b.sub.start.Load()) <= last) && wants && !seen[b.sub] {
			seen[b.sub] = true
			out = append(out, b.sub)
		}
	}
	return out
}

// outage knows whether the database cannot be reached.
type outage struct {
	now   atomic.Int64 // how many wait for it
	times atomic.Int64
}

func (s *Service) outageBegins() {
	s.outage.now.Add(1)
	s.outage.times.Add(1)
}

// outageEnds lets Handle look again: it waits for room while the database is away.
func (s *Service) outageEnds() {
	s.outage.now.Add(-1)
	s.workers.mu.Lock()
	defer s.workers.mu.Unlock()
	for _, o := range s.workers.own {
		if !o.busy.IsZero() {
			o.busy = time.Now()
		}
		signal(o.queue.freed)
	}
}

// depths returns how many changes wait, by worker.
func (w *workers) depths(each func(worker string, changes int)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, q := range w.shared {
		each(strconv.Itoa(i), q.depth())
	}
	for _, o := range w.own {
		each(strings.ToValidUTF8(o.table, "?"), o.queue.depth())
	}
}
