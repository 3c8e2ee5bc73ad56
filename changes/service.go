package changes

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// Stream tells whether changes are being read; *wal.Reader does.
type Stream interface {
	// Live returns nil once what is committed from now on will be handed on.
	Live(ctx context.Context) error
	// Handed is the position up to which everything was given to Handle.
	Handed() sluice.LSN
}

// Config describes a Service.
type Config struct {
	// Admin reads the catalog and validates filters. Required.
	Admin *pg.Pool
	// User logs in as authenticator; decisions are made on it, as the user.
	// Required.
	User *pg.Pool
	// Stream is asked before a subscription is answered. Required.
	Stream Stream
	// Logger is required.
	Logger *slog.Logger
	// Workers decide and deliver, each for its own tables. Default 4.
	Workers int
	// QueueJobs bounds the work that waits for one worker, in transactions of one
	// table. Default 1024. Past it, or past 4096 changes or 8 MB, the stream
	// waits.
	QueueJobs int
	// Parallel bounds the connections on which one table's policies are asked at
	// once. Default 4.
	Parallel int
	// CheckTimeout bounds one identity's policies over one batch. Default 5 s.
	CheckTimeout time.Duration
	// VisibleTimeout bounds the wait until a commit that the log shows is
	// visible to queries. Default 10 s.
	VisibleTimeout time.Duration
	// SlowRun is how long the changes of a table may keep its worker from those of
	// others: past it, or when a policy has timed out, the table gets a worker of
	// its own, until QuietTime has passed without either. Defaults 1 s, 1 min.
	SlowRun   time.Duration
	QuietTime time.Duration
	// OwnChanges bounds the changes that wait for a table's own worker. Past it,
	// or past 8 MB, the older half is given up, and the subscribers are told: the
	// stream does not wait for a slow policy. Default 4096.
	OwnChanges int
	// MaxRecord is the size in bytes past which a row is sent without its large
	// values. Default 1,048,576.
	MaxRecord int
	// Verify is the share of changes, from 0 to 1, of which PostgreSQL is asked as a
	// user in addition to the compiled policy. A policy that it does not agree with
	// is asked as the user from then on. Default 0.
	Verify float64
	// FingerprintEvery is how often the catalog is compared for what the stream
	// does not tell: roles and their members. Default 1 s.
	FingerprintEvery time.Duration
	// Grace is how long a client that was cut off may come back and miss nothing.
	// Default 60 s.
	Grace time.Duration
	// RingBytes bounds the changes that are kept for that. Default 64 MB.
	RingBytes int
	// MaxHeld bounds the subscriptions that are kept for their clients to come
	// back. Default 20,000.
	MaxHeld int
	// Resumes bounds the clients that are sent what they missed at the same time.
	// Default 8.
	Resumes int
	// Journal keeps positions over a restart. nil keeps them in memory alone.
	Journal *Journal
}

// Service implements sluice.ChangeFeed and takes the batches of the stream.
type Service struct {
	// fixed after New
	cfg     Config
	log     *slog.Logger
	catalog *catalog
	index   *index
	rosters rosters
	workers *workers
	open    unsettled
	ring    *ring
	places  *places
	outage  outage
	noisy   *limiter
	metrics Metrics
	resumes chan struct{}   // holds a token for each that may go on
	ctx     context.Context // ends with Run; what resumes runs under it
	cancel  context.CancelFunc
	floor   atomic.Uint64 // see Floor

	given part // owned by Handle

	// guarded by mu
	mu        sync.Mutex
	stopped   bool
	refreshed time.Time      // when the catalog was last invalidated for who came back
	resuming  sync.WaitGroup // not added to once stopped
}

// part is a place in the stream: the changes of a transaction before next.
type part struct {
	commit sluice.LSN
	next   int
}

// New checks cfg. It starts nothing.
func New(cfg Config) (*Service, error) {
	if cfg.Admin == nil || cfg.User == nil || cfg.Stream == nil || cfg.Logger == nil {
		return nil, errors.New("changes needs Admin, User, Stream and Logger")
	}
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&cfg.Workers, 4)
	def(&cfg.QueueJobs, 1024)
	def(&cfg.Parallel, 4)
	def(&cfg.OwnChanges, queueChanges)
	def(&cfg.MaxRecord, 1<<20)
	def(&cfg.RingBytes, 64<<20)
	def(&cfg.MaxHeld, 20_000)
	def(&cfg.Resumes, 8)
	for v, d := range map[*time.Duration]time.Duration{
		&cfg.CheckTimeout: 5 * time.Second, &cfg.VisibleTimeout: 10 * time.Second, &cfg.FingerprintEvery: time.Second,
		&cfg.Grace:   time.Minute,
		&cfg.SlowRun: time.Second, &cfg.QuietTime: time.Minute,
	} {
		if *v <= 0 {
			*v = d
		}
	}
	now := time.Now()
	s := &Service{
		cfg: cfg, log: cfg.Logger, catalog: newCatalog(cfg.Admin, cfg.User), index: newIndex(), noisy: newLimiter(),
		ring: newRing(cfg.RingBytes, cfg.Grace), places: newPlaces(cfg.Grace, cfg.MaxHeld, cfg.Journal, now), resumes: make(chan struct{}, cfg.Resumes),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, pl := range s.places.held { // of an earlier process
		s.ring.want(pl.names)
		s.ring.release(pl.names, now)
	}
	_, floor := s.places.turn(now, 0)
	s.floor.Store(uint64(floor))
	s.workers = newWorkers(&s.cfg)
	s.metrics.workers = s.workers
	return s, nil
}

// Metrics returns the counters.
func (s *Service) Metrics() *Metrics { return &s.metrics }

// Started notes from where the stream is read. Whoever listens is told of a gap.
func (s *Service) Started(from sluice.LSN, gap bool) {
	s.ring.begin(from, gap)
	if !gap {
		return
	}
	for _, b := range s.index.all() {
		if b == b.sub.bounds[0] {
			s.gap(b.sub, sluice.Refuse(sluice.CodeChangesGap))
		}
	}
}

// Away reports whether decisions wait for a database that cannot be reached.
func (s *Service) Away() bool { return s.outage.now.Load() > 0 }

// Floor is the position from which the stream has to be read again after a restart,
// so that who comes back then misses nothing; 0 when nobody may.
func (s *Service) Floor() sluice.LSN { return sluice.LSN(s.floor.Load()) }

// Handle takes one batch. Changes of tables that nobody listens to are dropped; the
// others are kept for a while, and go to the worker of their table. It blocks while that one is
// behind, which holds the stream up; but not for a table with a worker of its own.
func (s *Service) Handle(ctx context.Context, b sluice.ChangeBatch) error {
	// What a transaction makes of the catalog holds for its rows as well, those
	// before it included: nobody saw them sooner.
	if slices.ContainsFunc(b.Changes, func(c sluice.Change) bool { return c.Kind == sluice.ChangeCatalog }) {
		s.catalog.invalidate(b.XID)
	}
	s.ring.enter(&b)
	i := 0
	if b.Commit == s.given.commit { // perhaps a repetition of what was given in part
		i = min(max(0, s.given.next-b.First), len(b.Changes))
	}
	for i < len(b.Changes) {
		ch := &b.Changes[i]
		if ch.Kind == sluice.ChangeCatalog {
			i++
			continue
		}
		n := i + 1
		for n < len(b.Changes) && b.Changes[n].Relation == ch.Relation && b.Changes[n].Kind != sluice.ChangeCatalog {
			n++
		}
		if s.ring.wanted(ch.Relation.Schema, ch.Relation.Name) {
			j := newJob(&b, s.catalog.generation(), i, n)
			s.ring.add(j, time.Now())
			if err := s.enqueue(ctx, j); err != nil {
				return err
			}
		}
		s.given = part{b.Commit, b.First + n}
		i = n
	}
	s.ring.passed(&b)
	return nil
}

// settled returns the position up to which every change was decided and handed to
// its subscribers, whatever its table.
func (s *Service) settled() sluice.LSN { return s.open.before(s.cfg.Stream.Handed()) }

// Run decides and delivers until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, s.cancel)()
	s.workers.start(g)
	for _, q := range s.workers.shared {
		g.Go(func() error { s.work(ctx, q); return nil })
	}
	g.Go(func() error { s.watchPublication(ctx); return nil })
	g.Go(func() error { s.watchCatalog(ctx); return nil })
	g.Go(func() error { s.keepPlaces(ctx); return nil })
	err := g.Wait()
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.cancel()
	s.resuming.Wait()
	return err
}

// watchCatalog compares a fingerprint of what the stream does not tell.
func (s *Service) watchCatalog(ctx context.Context) {
	tick := time.NewTicker(s.cfg.FingerprintEvery)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// Whether anybody listens or not: what is seen need not be remembered.
		if err := s.catalog.look(ctx); err != nil {
			s.log.Debug("look at the catalog", sluice.LogError, err)
		}
		if s.metrics.Subscriptions.Load() == 0 {
			last = ""
			continue
		}
		var now string
		if err := s.cfg.Admin.QueryRow(ctx, fingerprintSQL).Scan(&now); err != nil {
			s.log.Debug("read catalog fingerprint", sluice.LogError, err)
			continue
		}
		// The first one after nobody listened counts as a change too: what is
		// known may be from before.
		if now != last {
			s.catalog.invalidate(0)
		}
		last = now
	}
}
