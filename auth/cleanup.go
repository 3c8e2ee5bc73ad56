package auth

import (
	"context"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

const (
	// cleanEvery is how often Run looks for what has ended.
	cleanEvery = time.Hour
	// keepEnded is how long what has ended stays, so that its answer can tell it
	// from what never was; keepSessions is longer, for people who look.
	keepEnded    = 24 * time.Hour
	keepSessions = 72 * time.Hour
	// cleanRows bounds one statement.
	cleanRows = 1000
)

// Run deletes what has ended, now and every hour, until ctx ends: used and expired
// tokens, flows, sessions, limits that no longer count, anonymous users that were left where
// the project wants that. Nodes may run it at once.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		if err := s.clean(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("auth: delete what has ended", sluice.LogError, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// clean deletes in pieces, so that nobody waits for it for long.
func (s *Server) clean(ctx context.Context) error {
	now := s.cfg.Now()
	ended := now.Add(-keepEnded)
	for _, d := range []struct {
		name string
		args []any
	}{
		{"clean_refresh_tokens", []any{ended}},
		{"clean_sessions", []any{now.Add(-keepSessions), since(ended, s.cfg.SessionTimebox), since(ended, s.cfg.SessionInactivity)}},
		{"clean_flows", []any{ended}},
		{"clean_oauth_states", []any{ended}},
		{"clean_one_time_tokens", []any{ended.Add(-s.cfg.CodeExpiry)}},
		{"clean_challenges", []any{ended}},
		{"clean_factors", []any{ended}},
		{"clean_limits", []any{now}},
		{"clean_anonymous", []any{since(now, s.cfg.AnonymousLife)}},
	} {
		for {
			var rows int64
			err := s.inTx(ctx, func(tx pg.Tx) error {
				tag, err := tx.Exec(ctx, sql(d.name), append(d.args, cleanRows)...)
				rows = tag.RowsAffected()
				return pg.Wrap(err, "%s", d.name)
			})
			if err != nil {
				return err
			}
			if rows < cleanRows {
				break
			}
		}
	}
	return nil
}
