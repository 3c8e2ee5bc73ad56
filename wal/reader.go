package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/backoff"
	"github.com/sluice-dev/sluice/pg"
)

// Config describes the reader of one database.
type Config struct {
	// URL logs in as a role with REPLICATION that may also call
	// sluice.sync_publication. Required.
	URL sluice.Secret
	// Slot is the name of the permanent slot. Default sluice. Slots share one
	// name space in a cluster.
	Slot string
	// Publication is streamed. Default sluice.
	Publication string
	// Handle takes the batches in order, one at a time. It may block: the
	// reader goes on answering the server, and reads on until 32 MB wait. A
	// batch that it refuses is logged and not repeated. Required.
	Handle func(ctx context.Context, b sluice.ChangeBatch) error
	// Messages takes the rows inserted into realtime.messages (Broadcast from
	// Database), in batches of their own, in commit order. They share the
	// stream with the changes but not their queue: a batch is handed on as soon
	// as it is read, before what waits for Handle. It is called by the loop that
	// answers the server and must not block. The same rows come by Handle too,
	// for users who publish that table. nil drops them.
	Messages func(ctx context.Context, b sluice.ChangeBatch) error
	// Floor is the oldest position that may still be asked for, 0 for none: the
	// position confirmed to the server stays at or before it, so that a restart
	// reads again from there. May be nil.
	Floor func() sluice.LSN
	// MaxHeld bounds in bytes how much WAL the floor may hold back; past it the
	// position goes on all the same, loudly. Default 256 MB.
	MaxHeld int64
	// Started is told, before a stream begins, from where: what committed before
	// is not handed on any more, except what was already. gap tells that some of
	// it never was. May be nil.
	Started func(from sluice.LSN, gap bool)
	// MessagesFrom is asked once, before the first stream: rows inserted into
	// realtime.messages that committed before it have been broadcast by an
	// earlier process. May be nil.
	MessagesFrom func() sluice.LSN
	// Failover makes a new slot one that standbys keep up with, so that it
	// survives a failover. PostgreSQL 17 or later; before it is refused.
	Failover bool
	// Away reports whether Handle waits for the database to come back. nil is never.
	Away func() bool
	// StatusEvery is how often the position is confirmed. Default 5 s; the
	// server gives up after wal_sender_timeout, 60 s.
	StatusEvery time.Duration
	// Logger is required.
	Logger *slog.Logger
}

// State is what the reader knows of itself.
type State struct {
	Streaming bool
	Handed    sluice.LSN // everything before it was handed on
	Confirmed sluice.LSN // told to the server: from here it would send again
	Server    sluice.LSN // the server's own position, when it last spoke
	Gaps      int        // times that changes were given up
	LetGo     int        // times that more WAL was held back than MaxHeld allows
	Err       error      // why it does not stream
}

// Reader streams one slot.
type Reader struct {
	// fixed after New
	cfg Config
	log *slog.Logger

	// guarded by mu
	mu      sync.Mutex
	state   State
	changed chan struct{} // closed and replaced when state.Streaming changes
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// New checks cfg. It starts nothing.
func New(cfg Config) (*Reader, error) {
	if cfg.Slot == "" {
		cfg.Slot = "sluice"
	}
	if cfg.Publication == "" {
		cfg.Publication = "sluice"
	}
	if cfg.StatusEvery == 0 {
		cfg.StatusEvery = 5 * time.Second
	}
	if cfg.MaxHeld == 0 {
		cfg.MaxHeld = 256 << 20
	}
	switch {
	case cfg.URL == "" || cfg.Handle == nil || cfg.Logger == nil:
		return nil, errors.New("wal needs URL, Handle and Logger")
	case !slotName.MatchString(cfg.Slot), !slotName.MatchString(cfg.Publication):
		return nil, fmt.Errorf("slot %q, publication %q: names are lower-case letters, digits and underscores: %w", cfg.Slot, cfg.Publication, sluice.ErrInvalid)
	}
	return &Reader{
		cfg: cfg, log: cfg.Logger.With(sluice.LogSlot, cfg.Slot),
		changed: make(chan struct{}), state: State{Err: errors.New("not started")},
	}, nil
}

// State returns a copy of the reader's state.
func (r *Reader) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// Slot returns the name of the slot.
func (r *Reader) Slot() string { return r.cfg.Slot }

// Handed returns the position up to which everything was given to Handle.
func (r *Reader) Handed() sluice.LSN { return r.State().Handed }

// Live returns nil once the slot is being streamed: what is committed from then
// on will be handed to Handle. It waits until ctx ends; the error then is a
// *sluice.Refusal with the reason.
func (r *Reader) Live(ctx context.Context) error {
	for {
		r.mu.Lock()
		live, err, changed := r.state.Streaming, r.state.Err, r.changed
		r.mu.Unlock()
		if live {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return sluice.Refuse(sluice.CodeUnableToConnect).WithCause(err)
		}
	}
}

func (r *Reader) setStreaming(on bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Err = err
	if r.state.Streaming != on {
		r.state.Streaming = on
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// Run streams until ctx ends. It connects again for ever: the slot keeps what is
// committed meanwhile. But a server that has gone back ends it, with a
// *WentBackError.
func (r *Reader) Run(ctx context.Context) error {
	s := &session{r: r}
	if r.cfg.MessagesFrom != nil {
		s.messages.commit = r.cfg.MessagesFrom()
	}
	var wait backoff.Backoff
	var said string
	for {
		err := s.run(ctx, wait.Reset)
		r.setStreaming(false, err)
		if ctx.Err() != nil {
			return nil
		}
		if errors.As(err, new(*WentBackError)) {
			return err
		}
		// The same trouble every few seconds is one line.
		if text := err.Error(); text != said {
			said = text
			r.log.Warn("change stream is down, trying again", sluice.LogError, err)
		}
		if s.stuck(err) {
			if err := s.heal(ctx); err != nil {
				r.log.Warn("heal the slot", sluice.LogError, err)
			}
		}
		if wait.Wait(ctx) != nil {
			return nil
		}
		// Nothing can be handed on meanwhile.
		for errors.Is(err, errHandlerAway) && r.cfg.Away() {
			if wait.Wait(ctx) != nil {
				return nil
			}
		}
	}
}

// stuck tells the errors that a slot cannot get over by itself: the publication
// did not exist when a change was written.
func (s *session) stuck(err error) bool {
	return pg.SQLState(err) == "42704"
}
