package realtime

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
)

// Server is the Realtime service of one node: an http.Handler for the paths
// behind /realtime/v1, and Run, which owns the sockets.
type Server struct {
	// fixed after New
	cfg      Config
	log      *slog.Logger
	hub      *Hub
	limits   *limits
	policies *policies
	mux      *http.ServeMux
	started  time.Time
	ctx      context.Context // ends with the server; slow steps of channels run under it
	cancel   context.CancelCauseFunc

	metrics     Metrics
	flusher     flusher
	nextConn    atomic.Int64
	nextChannel atomic.Uint64
	stopping    atomic.Bool
	rowLog      rowLog

	// guarded by mu
	mu     sync.Mutex
	poll   *poller // made for the first socket that it can watch
	conns  []*conn
	places int            // conns and handshakes under way
	open   sync.WaitGroup // one per conn; not added to once stopping is set under mu
}

// sweepEvery is how often idle sockets and expired tokens are looked for; the
// original does it every 6 s, and closes an expired channel within a second.
const sweepEvery = time.Second

// Close codes that package ws has no name for.
const (
	closeRestart  = ws.StatusCode(1012) // service restart
	closeTryLater = ws.StatusCode(1013)
)

var errStopped = errors.New("realtime stopped")

// New checks cfg. It starts nothing.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Logger, started: time.Now()}
	s.flusher.max = runtime.GOMAXPROCS(0)
	s.limits = newLimits(&s.cfg)
	s.metrics.limits = s.limits
	s.hub = newHub(cfg.Bus, &s.metrics, s.limits)
	s.policies = newPolicies(&s.cfg, &s.metrics)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.mux = s.routes()
	return s, nil
}

// Metrics returns the server's counters.
func (s *Server) Metrics() *Metrics { return &s.metrics }

// Deliver hands b to this node's subscribers; the bus calls it.
func (s *Server) Deliver(b *sluice.Broadcast) { s.hub.Deliver(b) }

// now is the time since New in nanoseconds, never 0.
func (s *Server) now() int64 { return int64(time.Since(s.started)) + 1 }

// Run looks after the sockets until ctx ends: idle ones, writers that hang,
// tokens that expire, limits; and asks the policies of private channels. Then
// joins are answered RealtimeRestarting, every channel is told so, every socket
// is closed with 1012, and Run returns after the last of them has ended.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var checks sync.WaitGroup
	checks.Go(func() { s.policies.run(s.ctx) }) // ends with stop
	defer checks.Wait()
	for second := 1; ; {
		select {
		case <-tick.C:
			s.sweep()
			s.turnLimits(second)
			second++
		case <-s.limits.wake:
			s.shutCondemned()
		case <-ctx.Done():
			s.stop()
			return nil
		}
	}
}

func (s *Server) stop() {
	s.mu.Lock()
	s.stopping.Store(true)
	conns := append([]*conn(nil), s.conns...)
	s.mu.Unlock()
	for _, c := range conns {
		c.disconnect()
	}
	s.cancel(errStopped)
	s.open.Wait()
	s.flusher.all.Wait()
	if s.poll != nil { // no socket comes any more
		s.poll.close()
	}
}

// poller returns the poller, nil where there is none. Stop ends it.
func (s *Server) poller() *poller {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poll == nil {
		p, err := newPoller()
		if err != nil {
			s.log.Warn("idle sockets need a goroutine each", sluice.LogError, err)
			return nil
		}
		s.poll = p
		go p.run(s.log) // ends with close, which waits
	}
	return s.poll
}

// sweep is the one timer of all sockets.
func (s *Server) sweep() {
	s.mu.Lock()
	conns := append([]*conn(nil), s.conns...)
	s.mu.Unlock()
	now := s.now()
	wall := time.Now()
	queued := 0
	for _, c := range conns {
		if since := c.writing.Load(); since != 0 && now-since >= int64(s.cfg.WriteTimeout) {
			c.slow("write timeout")
		}
		if now-c.lastRead.Load() >= int64(s.cfg.IdleTimeout) && !c.isClosing() {
			s.metrics.ClosedIdle.Add(1)
			c.close(ws.StatusNormalClosure, "")
		}
		if at := c.emptyAt.Load(); at != 0 && now-at >= int64(s.cfg.NoChannelTimeout) && !c.isClosing() {
			s.metrics.ClosedEmpty.Add(1)
			c.abort() // without a close frame, as the original does
		}
		// A socket that is being served right now is looked at in a second.
		if at := c.checkAt.Load(); at != 0 && at <= wall.UnixNano() && c.handleMu.TryLock() {
			if !c.finished {
				c.expire(wall)
			}
			c.handleMu.Unlock()
		}
		if c.follows.Load() && c.handleMu.TryLock() {
			c.confirmChanges()
			c.handleMu.Unlock()
		}
		c.mu.Lock()
		queued += c.bytes
		c.mu.Unlock()
	}
	s.metrics.QueueBytes.Store(int64(queued))
}

// reserve takes a place for one more socket, or says why there is none. register
// or release follows.
func (s *Server) reserve() *sluice.Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping.Load():
		return sluice.Refuse(sluice.CodeRestarting)
	case s.places >= s.cfg.MaxConns:
		return sluice.Refuse(sluice.CodeTooManyConns)
	}
	if refusal := s.limits.handshake(); refusal != nil {
		return refusal
	}
	s.places++
	s.open.Add(1)
	return nil
}

func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places--
	s.open.Done()
}

// register puts c under the eyes of sweep and stop.
func (s *Server) register(c *conn) {
	s.metrics.Conns.Add(1)
	s.metrics.Accepted.Add(1)
	s.mu.Lock()
	c.connIndex = len(s.conns)
	s.conns = append(s.conns, c)
	stopping := s.stopping.Load()
	s.mu.Unlock()
	if stopping {
		c.disconnect()
	}
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.conns) - 1
	s.conns[c.connIndex] = s.conns[last]
	s.conns[c.connIndex].connIndex = c.connIndex
	s.conns[last] = nil
	s.conns = s.conns[:last]
	s.places--
	s.metrics.Conns.Add(-1)
	s.open.Done()
}
