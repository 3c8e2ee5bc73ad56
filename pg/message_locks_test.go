package pg_test

import (
	"errors"
	"testing"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

// A user's open transaction that has sent something does not let maintenance
// queue in front of everybody else's sends: it gives up and comes back.
func TestMaintainDoesNotQueueBehindUsers(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("supabase_admin")
	db.Exec("select sluice.make_message_partitions(-10, 3)")
	db.Exec(`do $$ begin execute 'drop table realtime.messages_' || to_char((now() at time zone 'utc')::date + 3, 'YYYY_MM_DD'); end $$`)
	open, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open.Exec(t.Context(), "select realtime.send('{}', 'ev', 'room')"); err != nil {
		t.Fatal(err)
	}
	// Nor does it keep a server from starting.
	if err := pg.Migrate(t.Context(), db.URL("supabase_admin"), quiet); err != nil {
		t.Errorf("Migrate: %v", err)
	}
	if err := pg.Maintain(t.Context(), p); !errors.Is(err, sluice.ErrTimeout) {
		t.Errorf("Maintain: %v", err)
	}
	if err := open.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := pg.Maintain(t.Context(), p); err != nil {
		t.Error(err)
	}
	if got := ask(t, p, "select count(*)::text from pg_inherits where inhparent = 'realtime.messages'::regclass"); got != "7" {
		t.Errorf("%s partitions are left", got)
	}
}

// spec: realtime:100
func TestRetentionOfMessages(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("supabase_admin")
	if got := ask(t, p, "select count(*) || ' ' || min(right(inhrelid::regclass::text, 10)) || ' ' || max(right(inhrelid::regclass::text, 10)) from pg_inherits where inhparent = 'realtime.messages'::regclass"); got !=
		ask(t, p, "select '5 ' || to_char((now() at time zone 'utc')::date - 1, 'YYYY_MM_DD') || ' ' || to_char((now() at time zone 'utc')::date + 3, 'YYYY_MM_DD')") {
		t.Errorf("partitions of a new database: %s", got)
	}
	// Whole days: what was inserted on the day that is 72 hours ago stays.
	db.Exec(`select sluice.make_message_partitions(-6, 3);
insert into realtime.messages (topic, extension, event, inserted_at)
select 't', 'broadcast', e, d from (values
  ('yesterday', now() at time zone 'utc' - interval '1 day'),
  ('72 hours', now() at time zone 'utc' - interval '72 hours'),
  ('its midnight', date_trunc('day', now() at time zone 'utc' - interval '72 hours')),
  ('a moment before', date_trunc('day', now() at time zone 'utc' - interval '72 hours') - interval '1 microsecond'),
  ('five days', now() at time zone 'utc' - interval '5 days')) v (e, d)`)
	if err := pg.Maintain(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, p, "select string_agg(event, ', ' order by inserted_at desc) from realtime.messages"); got != "yesterday, 72 hours, its midnight" {
		t.Errorf("left: %s", got)
	}
}
