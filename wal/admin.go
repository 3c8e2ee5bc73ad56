package wal

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// SlotStatus is what the server knows of a slot.
type SlotStatus struct {
	Slot     string
	Database string
	Plugin   string
	Active   int        // process id of its reader, 0 without one
	Flushed  sluice.LSN // confirmed by its reader
	Kept     int64      // bytes of WAL that the server keeps for it
	WAL      string     // reserved, extended, unreserved or lost
	Limit    int64      // bytes past which the server gives the slot up, -1 for never
}

const statusSQL = `select s.slot_name, coalesce(s.database, ''), coalesce(s.plugin, ''), coalesce(s.active_pid, 0), coalesce(s.confirmed_flush_lsn, '0/0')::text,
       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint, coalesce(s.wal_status, ''),
       (select case when setting::bigint < 0 then -1 else setting::bigint << 20 end from pg_settings where name = 'max_slot_wal_keep_size')
  from pg_replication_slots s where s.slot_name = $1`

// Status looks at a slot. The error is sluice.ErrNotFound when there is none.
func Status(ctx context.Context, url sluice.Secret, slot string) (SlotStatus, error) {
	var s SlotStatus
	err := with(ctx, url, func(conn *pgx.Conn) error {
		var flushed string
		err := conn.QueryRow(ctx, statusSQL, slot).Scan(&s.Slot, &s.Database, &s.Plugin, &s.Active, &flushed, &s.Kept, &s.WAL, &s.Limit)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("slot %q: %w", slot, sluice.ErrNotFound)
		}
		if err != nil {
			return pg.Wrap(err, "look at slot %q", slot)
		}
		s.Flushed, err = sluice.ParseLSN(flushed)
		return err
	})
	return s, err
}

// Drop drops a slot that nobody reads, and with it what the server keeps for it. The
// error is sluice.ErrNotFound when there is none, sluice.ErrConflict while it is read.
func Drop(ctx context.Context, url sluice.Secret, slot string) error {
	s, err := Status(ctx, url, slot)
	switch {
	case err != nil:
		return err
	case s.Active != 0:
		return fmt.Errorf("slot %q is being read by process %d: stop Sluice first: %w", slot, s.Active, sluice.ErrConflict)
	case s.Plugin != "pgoutput":
		return fmt.Errorf("slot %q uses the plugin %q, so it is not Sluice's: %w", slot, s.Plugin, sluice.ErrConflict)
	}
	return with(ctx, url, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "select pg_drop_replication_slot($1)", slot)
		return pg.Wrap(err, "drop slot %q", slot)
	})
}

// with runs fn on a connection of its own.
func with(ctx context.Context, url sluice.Secret, fn func(*pgx.Conn) error) error {
	cfg, err := pgx.ParseConfig(string(url))
	if err != nil {
		return fmt.Errorf("parse database URL: %w", sluice.ErrInvalid)
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return pg.Wrap(err, "connect to the database")
	}
	defer closeConn(conn.PgConn())
	return fn(conn)
}
