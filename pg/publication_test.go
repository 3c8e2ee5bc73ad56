package pg_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice/internal/pgtest"
)

// published describes publication sluice: its actions, then one line per table.
func published(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	var s string
	err := db.Admin().QueryRow(context.Background(), `
select concat(case when pubinsert then 'i' end, case when pubupdate then 'u' end, case when pubdelete then 'd' end,
              case when pubtruncate then 't' end, case when pubviaroot then ' root' end)
       || coalesce((select string_agg(' ' || r.prrelid::regclass::text
            || coalesce('(' || (select string_agg(attname, ',') from unnest(r.prattrs) k join pg_attribute on attrelid = r.prrelid and attnum = k) || ')', '')
            || coalesce('{' || pg_get_expr(r.prqual, r.prrelid) || '}', ''), '' order by r.prrelid::regclass::text)
          from pg_publication_rel r where r.prpubid = p.oid), '')
  from pg_publication p where pubname = 'sluice'`).Scan(&s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each step is run as postgres, the role of migrations; the mirror is compared
// after it. The steps are one history.
func TestPublicationFollows(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", `
create table a (id int primary key, x text, y text);
create table b (id int primary key);
create table "Odd, Näme" (id int primary key, "Col ""q""" int);
create table nokey (x int);
create unlogged table fast (id int primary key);
create view v as select 1 as one;
create table part (id int, day date, primary key (id, day)) partition by range (day);
create table part_1 partition of part for values from ('2026-01-01') to ('2026-02-01');
create schema other;
create table other.c (id int primary key);`)

	const none = "iudt root realtime.messages"
	for _, step := range []struct{ sql, want string }{
		{"select 1", none},
		{"alter publication supabase_realtime add table a", "iudt root a realtime.messages"},
		{"alter publication supabase_realtime add table b, other.c", "iudt root a b other.c realtime.messages"},
		{"alter publication supabase_realtime set (publish = 'insert, delete')", "id root a b other.c realtime.messages"},
		{"alter publication supabase_realtime set (publish = '')", "i root a b other.c realtime.messages"},
		{"alter publication supabase_realtime set (publish = 'update')", "iu root a b other.c realtime.messages"},
		{"alter publication supabase_realtime set (publish = 'insert, update, delete, truncate')", "iudt root a b other.c realtime.messages"},
		{"alter publication supabase_realtime drop table b", "iudt root a other.c realtime.messages"},
		{`alter publication supabase_realtime set table "Odd, Näme" ("Col ""q""", id)`, `iudt root "Odd, Näme"(id,Col "q") realtime.messages`},
		{`alter publication supabase_realtime set table "Odd, Näme", a (id, x) where (id > 3)`, `iudt root "Odd, Näme" a(id,x){(id > 3)} realtime.messages`},
		{`alter publication supabase_realtime set table a where (id > 4)`, `iudt root a{(id > 4)} realtime.messages`},
		{"alter table a rename column id to id2", "iudt root a{(id2 > 4)} realtime.messages"},
		{"alter table a rename to a2", "iudt root a2{(id2 > 4)} realtime.messages"},
		{"alter table a2 rename to a; alter table a rename column id2 to id", "iudt root a{(id > 4)} realtime.messages"},
		{"alter table a set schema other", "iudt root other.a{(id > 4)} realtime.messages"},
		{"alter table other.a set schema public", "iudt root a{(id > 4)} realtime.messages"},
		{"alter publication supabase_realtime set table a", "iudt root a realtime.messages"},
		{"begin; alter publication supabase_realtime add table b; rollback", "iudt root a realtime.messages"},
		// A partitioned table is published as its leaves, by name of the leaf ...
		{"alter publication supabase_realtime set table part", "iudt root part_1 realtime.messages"},
		{"create table part_2 partition of part for values from ('2026-02-01') to ('2026-03-01')", "iudt root part_1 part_2 realtime.messages"},
		{"alter table part detach partition part_1", "iudt root part_2 realtime.messages"},
		{"alter table part attach partition part_1 for values from ('2026-01-01') to ('2026-02-01')", "iudt root part_1 part_2 realtime.messages"},
		{"drop table part_2", "iudt root part_1 realtime.messages"},
		// ... or as the root.
		{"alter publication supabase_realtime set (publish_via_partition_root = true)", "iudt root part realtime.messages"},
		{"alter publication supabase_realtime set (publish_via_partition_root = false)", "iudt root part_1 realtime.messages"},
		{"alter publication supabase_realtime add table realtime.messages", "iudt root part_1 realtime.messages"},
		{"alter publication supabase_realtime rename to mine", "i root realtime.messages"},
		{"alter publication mine rename to supabase_realtime", "iudt root part_1 realtime.messages"},
		{"drop publication supabase_realtime", "i root realtime.messages"},
		{"drop publication if exists supabase_realtime; create publication supabase_realtime", none},
		{"begin; drop publication if exists supabase_realtime; create publication supabase_realtime with (publish = 'insert'); commit; alter publication supabase_realtime add table b, nokey", "i root b nokey realtime.messages"},
		{"update nokey set x = 1; delete from nokey", "i root b nokey realtime.messages"},
		{"drop table b cascade", "i root nokey realtime.messages"},
		{"drop schema other cascade", "i root nokey realtime.messages"},
		{"drop publication supabase_realtime; update nokey set x = 1; delete from nokey", "i root realtime.messages"},
	} {
		db.ExecAs("postgres", step.sql)
		if got := published(t, db); got != step.want {
			t.Fatalf("after %s\n got %s\nwant %s", step.sql, got, step.want)
		}
	}

	// These need a superuser; the owner is postgres all the same.
	db.Exec("create publication supabase_realtime for tables in schema public with (publish = 'insert')")
	if got := published(t, db); got != `i root "Odd, Näme" a nokey part_1 realtime.messages` {
		t.Errorf("tables in schema: %s", got)
	}
	db.ExecAs("postgres", "create table later (x int)")
	if got := published(t, db); got != `i root "Odd, Näme" a later nokey part_1 realtime.messages` {
		t.Errorf("a new table in the schema: %s", got)
	}
	db.Exec("drop publication supabase_realtime; create publication supabase_realtime for all tables")
	got := published(t, db)
	for _, want := range []string{"iudt root ", " a", " later", " users", " storage.objects", " realtime.messages"} {
		if !strings.Contains(got, want) {
			t.Errorf("for all tables: %q is not in %s", want, got)
		}
	}
	for _, no := range []string{"sluice.", "messages_2", " fast", " v"} {
		if strings.Contains(got, no) {
			t.Errorf("for all tables: %q is in %s", no, got)
		}
	}
	db.ExecAs("postgres", "create table newest (id int primary key); create temp table tmp (id int); create table as_select as select 1 as one; select 1 as two into selected")
	got = published(t, db)
	for _, want := range []string{" newest", " as_select", " selected"} {
		if !strings.Contains(got, want) {
			t.Errorf("for all tables, a new one: %q is not in %s", want, got)
		}
	}
	if strings.Contains(got, "tmp") {
		t.Errorf("a temporary table is published: %s", got)
	}

	var changed bool
	if err := db.Admin().QueryRow(t.Context(), "select sluice.sync_publication()").Scan(&changed); err != nil || changed {
		t.Errorf("nothing was to do, changed %v, %v", changed, err)
	}
}

// Without the event trigger (no superuser) a poll calls sync_publication.
func TestSyncPublicationAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("drop event trigger sluice_ddl_command_end; drop event trigger sluice_sql_drop")
	db.ExecAs("postgres", "create table a (id int primary key); alter publication supabase_realtime add table a; alter publication supabase_realtime set (publish = 'insert, update')")
	if got := published(t, db); got != "iudt root realtime.messages" {
		t.Fatalf("nothing should have synchronised: %s", got)
	}
	for i, want := range []string{"true", "false"} {
		if got := ask(t, db.Pool("supabase_admin"), "select sluice.sync_publication()::text"); got != want {
			t.Errorf("call %d changed something: %s", i, got)
		}
		if got := published(t, db); got != "iu root a realtime.messages" {
			t.Errorf("got %s", got)
		}
	}
	// Even the publication itself comes back.
	db.Exec("drop publication sluice; select sluice.sync_publication()")
	if got := published(t, db); got != "iu root a realtime.messages" {
		t.Errorf("got %s", got)
	}
}

func TestPublicationIsNotForUsers(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("postgres")
	for _, sql := range []string{
		"drop publication sluice", "alter publication sluice rename to x", "alter publication sluice set (publish = '')",
		"alter publication sluice owner to postgres", "select sluice.sync_publication()", "delete from sluice.migrations",
		"create table sluice.x ()", "drop event trigger sluice_sql_drop", "drop schema sluice cascade",
	} {
		if _, err := p.Exec(t.Context(), sql); err == nil {
			t.Errorf("postgres may %s", sql)
		}
	}
}

// The slot on publication sluice goes on after supabase_realtime was dropped
// and created with changes in between. A slot on supabase_realtime itself would
// fail for ever.
//
// spec: pgchanges:115
func TestSlotSurvivesDroppedPublication(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	slot := newSlot(t, db)
	db.ExecAs("postgres", "create table a (id int primary key); alter publication supabase_realtime add table a; insert into a values (1)")
	db.ExecAs("postgres", "drop publication supabase_realtime")
	db.ExecAs("postgres", "insert into a values (2)")
	db.ExecAs("postgres", "create publication supabase_realtime; insert into a values (3)")
	db.ExecAs("postgres", "alter publication supabase_realtime add table a; insert into a values (4)")
	db.ExecAs("postgres", "begin; drop publication supabase_realtime; insert into a values (5); create publication supabase_realtime for table a; insert into a values (6); commit")
	db.ExecAs("postgres", "insert into a values (7); select realtime.send('{}', 'ev', 'room', false)")

	got := slot.changes(t)
	want := []string{"public.a 1", "public.a 4", "public.a 6", "public.a 7", "realtime.messages room"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What changes in the catalog is in the stream, between the changes before and
// after it.
func TestCatalogMessages(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	slot := newSlot(t, db)
	db.ExecAs("postgres", `
create table a (id int primary key, x text);
create temp table tmp (id int);
alter table a enable row level security;
create policy p on a for select to anon using (true);
alter policy p on a using (false);
grant select (x) on a to anon;
drop policy p on a;
alter table a drop column x;
drop table a;
select 1`)
	got := slot.messages(t)
	want := []string{
		"ddl CREATE TABLE table:public.a index:public.a_pkey",
		"ddl ALTER TABLE table:public.a",
		"ddl CREATE POLICY policy:p on public.a",
		"ddl ALTER POLICY policy:p on public.a",
		"ddl GRANT TABLE:",
		"drop DROP POLICY policy:p on public.a",
		"drop ALTER TABLE table column:public.a.x", "ddl ALTER TABLE table:public.a",
		"drop DROP TABLE table:public.a table constraint:a_pkey on public.a",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	// Many objects are cut short, and a rolled back command says nothing.
	var sql strings.Builder
	sql.WriteString("create schema many ")
	for i := range 80 {
		fmt.Fprintf(&sql, " create table many.t%d ()", i)
	}
	db.ExecAs("postgres", "begin; create table gone (); rollback; "+sql.String()+"; drop schema many cascade")
	got = slot.messages(t)
	if len(got) == 0 || !strings.HasSuffix(got[len(got)-1], " …") || strings.Contains(strings.Join(got, "\n"), "gone") {
		t.Errorf("got %d messages: %.2000s", len(got), got)
	}
}

// TestCatalogMessagesUnderReplica: a session that works as a replica, as dumps and
// seeds made from them do, is heard as any other.
func TestCatalogMessagesUnderReplica(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	slot := newSlot(t, db)
	db.ExecAs("postgres", `
set session_replication_role = replica;
create table a (id int primary key);
alter publication supabase_realtime add table a;
create policy p on a for select using (true);
drop policy p on a;
reset all;`)
	want := []string{
		"ddl CREATE TABLE table:public.a index:public.a_pkey",
		"ddl ALTER PUBLICATION publication relation:public.a in publication supabase_realtime",
		"ddl CREATE POLICY policy:p on public.a", "drop DROP POLICY policy:p on public.a",
	}
	if diff := cmp.Diff(want, slot.messages(t)); diff != "" {
		t.Error(diff)
	}
	if got := published(t, db); got != "iudt root a realtime.messages" {
		t.Errorf("published: %s", got)
	}
	// REST hears it too, and postgres cannot switch any of it off.
	always := ask(t, db.Pool("supabase_admin"), "select string_agg(evtname || evtenabled::text, ' ' order by evtname) from pg_event_trigger")
	if want := "pgrst_ddl_watchA pgrst_drop_watchA sluice_ddl_command_endA sluice_sql_dropA"; always != want {
		t.Errorf("event triggers: %s", always)
	}
	if _, err := db.Pool("postgres").Exec(t.Context(), "alter event trigger sluice_sql_drop enable replica"); err == nil {
		t.Error("postgres may alter an event trigger of Sluice")
	}
}

// A broken mirror must not break the user's own commands.
func TestEventTriggersNeverFailTheUser(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec("create or replace function sluice.sync_publication() returns boolean language plpgsql as $$ begin raise 'broken'; end $$")
	db.ExecAs("postgres", "create table a (id int primary key); alter publication supabase_realtime add table a")
	db.Exec("drop function sluice.sync_publication()")
	db.ExecAs("postgres", "alter publication supabase_realtime drop table a")
	// DDL in the hands of API roles: a function that makes a temporary table.
	db.ExecAs("postgres", "create function public.tmp() returns int language plpgsql as $$ begin create temp table x as select 1; drop table x; return 1; end $$")
	db.ExecAs("authenticator", "set role anon; select public.tmp()")
}

func TestSchemaReloadIsNotified(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn, err := db.Admin().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), "listen pgrst"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"create table a ()", "comment on table a is 'x'", "drop table a"} {
		db.ExecAs("postgres", sql)
		n, err := conn.Conn().WaitForNotification(t.Context())
		if err != nil || n.Payload != "reload schema" {
			t.Fatalf("%s: %v %v", sql, n, err)
		}
	}
}

// testSlot reads a logical slot with pgoutput, without a decoder of its own
// right: enough to name tables and first columns.
type testSlot struct {
	db   *pgtest.DB
	name string
}

func newSlot(t *testing.T, db *pgtest.DB) testSlot {
	t.Helper()
	s := testSlot{db, fmt.Sprintf("pg_test_%d", slotNumber.Add(1))}
	db.Exec("select pg_create_logical_replication_slot($1, 'pgoutput')", s.name)
	t.Cleanup(func() {
		_, _ = db.Admin().Exec(context.Background(), "select pg_drop_replication_slot($1)", s.name)
	})
	return s
}

func (s testSlot) read(t *testing.T) [][]byte {
	t.Helper()
	rows, err := s.db.Admin().Query(t.Context(), `select data from pg_logical_slot_get_binary_changes($1, null, null,
		'proto_version', '1', 'publication_names', 'sluice', 'messages', 'true')`, s.name)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return out
}

// changes returns "schema.table firstcolumn" per insert.
func (s testSlot) changes(t *testing.T) []string {
	t.Helper()
	var out []string
	rel := map[uint32]string{}
	for _, m := range s.read(t) {
		switch m[0] {
		case 'R':
			schema, rest, _ := strings.Cut(string(m[5:]), "\x00")
			table, _, _ := strings.Cut(rest, "\x00")
			rel[binary.BigEndian.Uint32(m[1:])] = schema + "." + table
		case 'I': // oid, 'N', columns, 't', length, text
			n := binary.BigEndian.Uint32(m[9:])
			out = append(out, rel[binary.BigEndian.Uint32(m[1:])]+" "+string(m[13:13+n]))
		}
	}
	return out
}

// messages returns "kind tag type:identity …" per catalog message.
func (s testSlot) messages(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, m := range s.read(t) {
		if m[0] != 'M' {
			continue
		}
		if m[1] != 1 {
			t.Error("the message is not transactional")
		}
		prefix, rest, _ := strings.Cut(string(m[10:]), "\x00")
		var c struct {
			Kind, Tag string
			Objects   []struct {
				Type, Identity, Schema string
				OID                    uint32
			}
			More bool
		}
		if err := json.Unmarshal([]byte(rest[4:]), &c); err != nil || prefix != "sluice" {
			t.Fatalf("%s %s: %v", prefix, rest, err)
		}
		line := c.Kind + " " + c.Tag
		for _, o := range c.Objects {
			line += " " + o.Type + ":" + o.Identity
		}
		if c.More {
			line += " …"
		}
		out = append(out, line)
	}
	return out
}

var slotNumber atomic.Int64
