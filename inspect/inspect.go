package inspect

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// Config says where a node's knowledge is.
type Config struct {
	// Sockets lists open sockets; see realtime.Server.View. nil when Realtime is off.
	Sockets func(ctx context.Context, only sluice.Only) (list []sluice.SocketView, total int)
	// Tracer follows changes. Required.
	Tracer sluice.Tracer
	// Stream tells how the change stream is. Required.
	Stream func() Stream
	// Refusals are those of the log. Required.
	Refusals *Refusals
	// Admin reads users and the publication. Required.
	Admin *pg.Pool
	// Version is the program's.
	Version string
	// Logger is required.
	Logger *slog.Logger
}

// Stream is how the change stream is.
type Stream struct {
	Streaming bool   `json:"streaming"`
	Slot      string `json:"slot"`
	// Handed is up to where it was read, Confirmed what PostgreSQL was told, Server
	// the end of PostgreSQL's log; Behind is what is between them, in bytes.
	Handed    string `json:"handed"`
	Confirmed string `json:"confirmed"`
	Server    string `json:"server"`
	Behind    int64  `json:"behind_bytes"`
	Held      int64  `json:"held_bytes"` // from Confirmed to Server
	Gaps      int    `json:"gaps"`       // times that changes were given up
	Error     string `json:"error,omitempty"`
}

// View is a node's account of itself.
type View struct {
	Version string              `json:"version"`
	Now     time.Time           `json:"now"`
	Started time.Time           `json:"started"`
	Stream  Stream              `json:"stream"`
	Sockets []sluice.SocketView `json:"sockets"`
	// SocketsTotal may be more than are listed.
	SocketsTotal int       `json:"sockets_total"`
	Refusals     []Refused `json:"refusals"` // the latest first
}

// Server is a node's knowledge of itself.
type Server struct {
	cfg     Config
	started time.Time
	mux     *http.ServeMux
}

// New checks cfg.
func New(cfg Config) (*Server, error) {
	if cfg.Tracer == nil || cfg.Stream == nil || cfg.Refusals == nil || cfg.Admin == nil || cfg.Logger == nil {
		return nil, errors.New("inspect needs Tracer, Stream, Refusals, Admin and Logger")
	}
	if cfg.Sockets == nil {
		cfg.Sockets = func(context.Context, sluice.Only) ([]sluice.SocketView, int) { return nil, 0 }
	}
	s := &Server{cfg: cfg, started: time.Now()}
	s.mux = s.routes()
	return s, nil
}

// defaultSockets bounds what View lists when nobody gave a bound.
const defaultSockets = 200

// View returns what the node knows; only restricts the sockets, not the refusals.
func (s *Server) View(ctx context.Context, only sluice.Only) View {
	if only.Limit <= 0 {
		only.Limit = defaultSockets
	}
	v := View{Version: s.cfg.Version, Now: time.Now().UTC(), Started: s.started.UTC(), Stream: s.cfg.Stream(), Refusals: s.cfg.Refusals.Latest()}
	if v.Sockets, v.SocketsTotal = s.cfg.Sockets(ctx, only); v.Sockets == nil {
		v.Sockets = []sluice.SocketView{}
	}
	return v
}
