package wal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// appName marks our own replication connections, so that one that a killed
// process left behind can be told from a stranger's.
const appName = "sluice changes"

// connect opens a replication connection whose session renders values in one
// form, whatever the database's settings (spec postgres-changes 13 and D19).
func (r *Reader) connect(ctx context.Context) (*pgconn.PgConn, error) {
	cfg, err := pgconn.ParseConfig(string(r.cfg.URL))
	if err != nil {
		return nil, fmt.Errorf("parse database URL of the change stream: %w", sluice.ErrInvalid)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	for k, v := range map[string]string{
		"replication": "database", "application_name": appName, "DateStyle": "ISO, MDY", "IntervalStyle": "postgres",
		"TimeZone": "UTC", "extra_float_digits": "1", "bytea_output": "hex", "statement_timeout": "0",
		"idle_in_transaction_session_timeout": "0", "lock_timeout": "0",
	} {
		cfg.RuntimeParams[k] = v
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, pg.Wrap(err, "connect for the change stream")
	}
	return conn, nil
}

// query runs one statement of ours; a replication connection knows only the
// simple protocol.
func query(ctx context.Context, conn *pgconn.PgConn, sql string) ([][][]byte, error) {
	res, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil || len(res) == 0 {
		return nil, err
	}
	return res[0].Rows, nil
}

// slotInfo is a row of pg_replication_slots.
type slotInfo struct {
	database, plugin, walStatus string
	activePID                   int
	ours                        bool // the active process is one of ours
	sameDatabase                bool
	confirmed                   sluice.LSN
}

// prepare makes sure that publication and slot are there and free, and returns
// from where the slot would be streamed. had tells that the slot was there before:
// if it is gone, so is what it kept.
func (r *Reader) prepare(ctx context.Context, conn *pgconn.PgConn, had bool) (sluice.LSN, error) {
	if err := r.checkServer(ctx, conn); err != nil {
		return 0, err
	}
	deadline := time.Now().Add(takeOverAfter)
	for {
		info, err := r.slot(ctx, conn)
		switch {
		case err != nil:
			return 0, err
		case info == nil:
			if had {
				r.gap("the slot was dropped by somebody else; what was committed until it is made again is lost")
			}
			return r.create(ctx, conn)
		case !info.sameDatabase:
			return 0, fmt.Errorf("slot %q belongs to database %q: choose another slot name, or drop it there: %w", r.cfg.Slot, info.database, sluice.ErrConflict)
		case info.plugin != "pgoutput":
			return 0, fmt.Errorf("slot %q uses the plugin %q, not pgoutput: choose another slot name, or drop it: %w", r.cfg.Slot, info.plugin, sluice.ErrConflict)
		case info.walStatus == "lost":
			return r.recreate(ctx, conn)
		case info.activePID == 0:
			return info.confirmed, nil
		case !info.ours:
			return 0, fmt.Errorf("slot %q is in use by process %d, which is not Sluice; end it with: select pg_terminate_backend(%d): %w", r.cfg.Slot, info.activePID, info.activePID, sluice.ErrConflict)
		case time.Now().After(deadline):
			r.log.Warn("ending the replication connection of an earlier Sluice", "pid", info.activePID)
			if _, err := query(ctx, conn, "select pg_terminate_backend("+strconv.Itoa(info.activePID)+")"); err != nil {
				return 0, pg.Wrap(err, "end the earlier replication connection")
			}
			deadline = time.Now().Add(takeOverAfter)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(slotPoll):
		}
	}
}

// The server notices that a killed client is gone within moments; past that the
// connection is ended for it.
const (
	takeOverAfter = 2 * time.Second
	slotPoll      = 20 * time.Millisecond
)

// checkServer refuses settings with which nothing can be streamed.
func (r *Reader) checkServer(ctx context.Context, conn *pgconn.PgConn) error {
	rows, err := query(ctx, conn, fmt.Sprintf(`select current_setting('wal_level'), exists (select from pg_publication where pubname = '%s')`, r.cfg.Publication))
	if err != nil {
		return pg.Wrap(err, "look at the server's settings")
	}
	if level := string(rows[0][0]); level != "logical" {
		return fmt.Errorf("wal_level is %s: set wal_level = logical and restart PostgreSQL: %w", level, sluice.ErrInvalid)
	}
	if string(rows[0][1]) != "t" {
		return r.syncPublication(ctx, conn)
	}
	return nil
}

func (r *Reader) syncPublication(ctx context.Context, conn *pgconn.PgConn) error {
	r.log.Warn("publication is missing, making it again", "publication", r.cfg.Publication)
	_, err := query(ctx, conn, "select sluice.sync_publication()")
	return pg.Wrap(err, "make publication %q", r.cfg.Publication)
}

func (r *Reader) slot(ctx context.Context, conn *pgconn.PgConn) (*slotInfo, error) {
	rows, err := query(ctx, conn, fmt.Sprintf(`
select coalesce(s.database, ''), coalesce(s.plugin, ''), coalesce(s.wal_status, ''), coalesce(s.active_pid, 0),
       coalesce(a.application_name = '%s', false), coalesce(s.database = current_database(), false),
       coalesce(s.confirmed_flush_lsn, '0/0')::text
  from pg_replication_slots s left join pg_stat_activity a on a.pid = s.active_pid
 where s.slot_name = '%s'`, appName, r.cfg.Slot))
	if err != nil {
		return nil, pg.Wrap(err, "look at slot %q", r.cfg.Slot)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	row := rows[0]
	pid, _ := strconv.Atoi(string(row[3])) // the server sends a number
	confirmed, err := sluice.ParseLSN(string(row[6]))
	if err != nil {
		return nil, fmt.Errorf("look at slot %q: %w", r.cfg.Slot, err)
	}
	return &slotInfo{
		confirmed: confirmed,
		database:  string(row[0]), plugin: string(row[1]), walStatus: string(row[2]),
		activePID: pid, ours: string(row[4]) == "t", sameDatabase: string(row[5]) == "t",
	}, nil
}

func (r *Reader) create(ctx context.Context, conn *pgconn.PgConn) (sluice.LSN, error) {
	options, err := r.slotOptions(ctx, conn)
	if err != nil {
		return 0, err
	}
	rows, err := query(ctx, conn, fmt.Sprintf(`CREATE_REPLICATION_SLOT "%s" LOGICAL pgoutput %s`, r.cfg.Slot, options))
	var pe *pgconn.PgError
	switch {
	case errors.As(err, &pe) && pe.Code == "53400":
		return 0, fmt.Errorf("create slot %q: all of max_replication_slots are in use; drop unused ones or raise it: %w", r.cfg.Slot, err)
	case err != nil:
		return 0, pg.Wrap(err, "create slot %q", r.cfg.Slot)
	case len(rows) != 1 || len(rows[0]) < 2:
		return 0, fmt.Errorf("create slot %q: the server did not say where it begins", r.cfg.Slot)
	}
	r.log.Info("slot created")
	return sluice.ParseLSN(string(rows[0][1])) // consistent_point
}

// failoverVersion is the first server that keeps slots through a failover.
const failoverVersion = 170000

// slotOptions returns the end of CREATE_REPLICATION_SLOT. Servers before 15 would
// want another spelling; they are not supported.
func (r *Reader) slotOptions(ctx context.Context, conn *pgconn.PgConn) (string, error) {
	if !r.cfg.Failover {
		return "(SNAPSHOT 'nothing')", nil
	}
	rows, err := query(ctx, conn, "select current_setting('server_version_num')")
	if err != nil {
		return "", pg.Wrap(err, "ask for the server's version")
	}
	if version, _ := strconv.Atoi(string(rows[0][0])); version < failoverVersion {
		return "", fmt.Errorf("a slot that survives a failover needs PostgreSQL 17, this is %d: switch the failover option off: %w", version/10000, sluice.ErrInvalid)
	}
	return "(SNAPSHOT 'nothing', FAILOVER true)", nil
}

// recreate replaces a slot whose WAL the server has thrown away.
func (r *Reader) recreate(ctx context.Context, conn *pgconn.PgConn) (sluice.LSN, error) {
	r.gap("the server has removed WAL that the slot still needed; changes are lost. Raise max_slot_wal_keep_size")
	if err := pglogrepl.DropReplicationSlot(ctx, conn, r.cfg.Slot, pglogrepl.DropReplicationSlotOptions{}); err != nil {
		return 0, pg.Wrap(err, "drop lost slot %q", r.cfg.Slot)
	}
	return r.create(ctx, conn)
}

// gap notes that changes were given up, loudly.
func (r *Reader) gap(why string) {
	r.mu.Lock()
	r.state.Gaps++
	r.mu.Unlock()
	r.log.Error("gap in the change stream", "why", why)
}

// heal gets a slot over a change that it cannot decode because the publication
// did not exist when it was written: the publication is made again, and if that
// is not enough the slot is advanced to now.
func (s *session) heal(ctx context.Context) error {
	conn, err := s.r.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := s.r.syncPublication(ctx, conn); err != nil {
		return err
	}
	if s.healed++; s.healed < 2 {
		return nil
	}
	s.healed = 0
	s.r.gap("the slot could not decode what was written while its publication was missing")
	_, err = query(ctx, conn, fmt.Sprintf("select pg_replication_slot_advance('%s', pg_current_wal_lsn())", s.r.cfg.Slot))
	return pg.Wrap(err, "advance slot %q", s.r.cfg.Slot)
}

func closeConn(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the connection is given up either way
}
