package wal

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// WentBackError ends a Reader: the server's history does not hold what was handed
// on. It was put back to an earlier state, or a standby that lagged was promoted;
// positions from before mean something else now, or nothing.
type WentBackError struct {
	// To is the position before which the history is perhaps still the same.
	To  sluice.LSN
	Why string
}

// Error implements error.
func (e *WentBackError) Error() string {
	return "the change stream went back to " + e.To.String() + ": " + e.Why
}

// recognize compares the server with that of the connection before.
func (s *session) recognize(ctx context.Context, conn *pgconn.PgConn) error {
	now, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return pg.Wrap(err, "ask the server who it is")
	}
	before := s.server
	s.server = now
	to, why := sluice.LSN(now.XLogPos), ""
	switch {
	case before.SystemID == "":
	case now.SystemID != before.SystemID:
		why = "it is another cluster"
	case now.Timeline != before.Timeline:
		fork, err := forked(ctx, conn, before.Timeline, now.Timeline)
		if err != nil {
			s.server = before // to be asked again
			return err
		}
		if fork < s.handed {
			to, why = fork, fmt.Sprintf("the server that was promoted had not got %s yet", s.handed)
		}
	case to < s.handed:
		why = fmt.Sprintf("%s was streamed before", s.handed)
	}
	if why == "" {
		return nil
	}
	s.r.gap(why)
	return &WentBackError{min(to, s.handed), why}
}

// forked returns where the history of timeline now has left timeline before; 0
// when it never was on it.
func forked(ctx context.Context, conn *pgconn.PgConn, before, now int32) (sluice.LSN, error) {
	history, err := pglogrepl.TimelineHistory(ctx, conn, now)
	if err != nil {
		return 0, pg.Wrap(err, "ask for the history of timeline %d", now)
	}
	return forkIn(history.Content, before), nil
}

// forkIn reads a history file: lines of a timeline, where it was left, and why.
func forkIn(history []byte, timeline int32) sluice.LSN {
	for line := range bytes.Lines(history) {
		words := bytes.Fields(line)
		if len(words) < 2 || string(words[0]) != strconv.Itoa(int(timeline)) {
			continue
		}
		if at, err := sluice.ParseLSN(string(words[1])); err == nil && at != 0 {
			return at
		}
	}
	return 0
}
