package pg

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sluice-dev/sluice"
)

// Config describes one pool.
type Config struct {
	// URL is a libpq connection string or URL. Required. It may hold a
	// password, so it is a Secret and never appears in errors.
	URL sluice.Secret
	// Name becomes application_name. Default "sluice".
	Name string
	// MaxConns bounds the pool. Default 8.
	MaxConns int32
	// Own tells that nobody's statements run on the pool but Sluice's own, which pgx
	// then prepares. Elsewhere it prepares nothing: functions and policies may do what
	// they like in the session, and pgx's names can be guessed.
	Own bool
	// StatementTimeout is set on every connection; 0 leaves the server's.
	StatementTimeout time.Duration
	// Logger receives warnings. Required.
	Logger *slog.Logger
}

// Pool is a bounded set of connections that log in as one role.
type Pool struct {
	*pgxpool.Pool
	log *slog.Logger
}

// Open checks cfg and makes a pool. It connects lazily: a database that is not
// there yet shows at the first use, as an error of kind sluice.ErrUnavailable.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	pc, err := pgxpool.ParseConfig(string(cfg.URL))
	if err != nil {
		// The parser's error may quote the string, password included.
		return nil, fmt.Errorf("parse database URL of pool %q: %w", cfg.Name, sluice.ErrInvalid)
	}
	pc.MaxConns = 8
	if cfg.MaxConns > 0 {
		pc.MaxConns = cfg.MaxConns
	}
	name := cfg.Name
	if name == "" {
		name = "sluice"
	}
	pc.ConnConfig.RuntimeParams["application_name"] = name
	if cfg.StatementTimeout > 0 {
		pc.ConnConfig.RuntimeParams["statement_timeout"] = fmt.Sprint(cfg.StatementTimeout.Milliseconds())
	}
	if pc.ConnConfig.ConnectTimeout == 0 {
		pc.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	pc.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
		putTap(&cc.Config)
		return nil
	}
	if !cfg.Own {
		pc.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	pc.AfterConnect = func(ctx context.Context, c *pgx.Conn) error { return learnNames(ctx, c, cfg.Own) }
	p, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open pool %q: %w", name, err)
	}
	return &Pool{Pool: p, log: cfg.Logger}, nil
}
