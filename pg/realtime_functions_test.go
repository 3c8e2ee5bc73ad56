package pg_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

// runWith runs sql in one transaction as role with claims and returns the
// warnings that the server sent and the error.
func runWith(t *testing.T, db *pgtest.DB, role, claims, sql string) (warnings []string, err error) {
	t.Helper()
	cfg, err := pgx.ParseConfig(string(db.URL("supabase_admin")))
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Severity == "WARNING" {
			warnings = append(warnings, n.Message)
		}
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = tx.Exec(t.Context(), "select set_config('request.jwt.claims', $2, true), set_config('role', $1, true)", role, claims); err != nil {
		t.Fatal(err)
	}
	if _, err = conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		return warnings, err
	}
	return warnings, tx.Commit(t.Context())
}

// spec: pgchanges:106 pgchanges:107 pgchanges:109 pgchanges:110
func TestRealtimeSend(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("supabase_admin")
	const last = `with d as (delete from realtime.messages returning *)
		select coalesce(string_agg(concat_ws('|', topic, event, extension, private, payload - 'id', case when payload ->> 'id' = id::text then 'row id' else payload ->> 'id' end, binary_payload), ','), '') from d`
	const rls = `new row violates row-level security policy for table "messages"`
	for _, c := range []struct{ role, sql, warning, want string }{
		{"postgres", `select realtime.send('{"a":1}', 'ev', 'room')`, "", `room|ev|broadcast|t|{"a": 1}|row id`},
		{"postgres", `select realtime.send('{"a":1}', 'ev', 'room', false)`, "", `room|ev|broadcast|f|{"a": 1}|row id`},
		{"postgres", `select realtime.send(payload => '{"id":"mine"}', event => 'ev', topic => 'room', private => true)`, "", `room|ev|broadcast|t|{}|mine`},
		{"postgres", `select realtime.send('{"id":null}', 'ev', 'room')`, "", `room|ev|broadcast|t|{}`},
		{"postgres", `select realtime.send('["id"]', 'ev', 'room')`, "", "?"},
		{"postgres", `select realtime.send('[1]', 'ev', 'room')`, `path element at position 1 is not an integer: "id"`, ""},
		{"postgres", `select realtime.send('1', 'ev', 'room')`, "cannot set path in scalar", ""},
		{"postgres", `select realtime.send(null, 'ev', 'room')`, "", "room|ev|broadcast|t"},
		{"postgres", `select realtime.send('{}', null, 'room')`, "", "room|broadcast|t|{}|row id"},
		{"postgres", `select realtime.send('{}', 'ev', null)`, `null value in column "topic" of relation "`, ""},
		{"postgres", `select realtime.send_binary('\x0102', 'ev', 'room')`, "", `room|ev|broadcast|t|\x0102`},
		{"postgres", `select realtime.send_binary('', 'ev', 'room', false)`, "", `room|ev|broadcast|f|\x`},
		{"service_role", `select realtime.send('{}', 'ev', 'room')`, "", "room|ev|broadcast|t|{}|row id"},
		{"anon", `select realtime.send('{}', 'ev', 'room')`, rls, ""},
		{"authenticated", `select realtime.send_binary('', 'ev', 'room')`, rls, ""},
	} {
		warnings, err := runWith(t, db, c.role, `{}`, c.sql)
		if err != nil {
			t.Errorf("%s: the caller's transaction failed: %v", c.sql, err)
		}
		got := ask(t, p, last)
		if c.want != "?" && got != c.want {
			t.Errorf("%s as %s: got %s, want %s", c.sql, c.role, got, c.want)
		}
		warning := strings.Join(warnings, "\n")
		if c.warning == "" && warning != "" || !strings.HasPrefix(warning, "WarnSendingBroadcastMessage: "+c.warning) && c.warning != "" {
			t.Errorf("%s as %s: warning %q, want %q", c.sql, c.role, warning, c.warning)
		}
	}
	_, err := p.Exec(t.Context(), `insert into realtime.messages (topic, extension, payload, binary_payload) values ('t', 'broadcast', '{}', '')`)
	if pg.SQLState(err) != "23514" || !strings.Contains(err.Error(), "messages_payload_exclusive") {
		t.Errorf("both payloads: %v", err)
	}
	// The topic stays set for the rest of the transaction.
	if _, err := runWith(t, db, "postgres", "{}", `select realtime.send('{}', 'ev', 'room'); do $$ begin if realtime.topic() <> 'room' then raise 'topic is %', realtime.topic(); end if; end $$`); err != nil {
		t.Error(err)
	}
	if got := ask(t, p, "select coalesce(realtime.topic(), 'unset')"); got != "unset" {
		t.Errorf("topic: %s", got)
	}
}

// spec: pgchanges:123 pgchanges:124 pgchanges:125 pgchanges:126 pgchanges:127
func TestRealtimeSendUnderPolicies(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("supabase_admin")
	db.ExecAs("postgres", `
create table seen (who text, topic text);
grant insert on seen to authenticated;
create function note() returns trigger language plpgsql as $$ begin insert into public.seen values (current_user, realtime.topic()); return null; end $$;
create trigger note after insert on realtime.messages for each row execute function note();
create policy send on realtime.messages for insert to authenticated with check (realtime.topic() = 'room' and topic = 'room' and auth.jwt() ->> 'ok' = 'yes');
create function definer_send() returns void language sql security definer set search_path = '' as $$ select realtime.send('{}', 'ev', 'elsewhere') $$;`)
	send := func(role, claims, sql string) string {
		t.Helper()
		warnings, err := runWith(t, db, role, claims, sql)
		if err != nil {
			t.Fatal(err)
		}
		n := ask(t, p, "with d as (delete from realtime.messages returning 1) select count(*)::text from d")
		if (n == "0") != (len(warnings) == 1) {
			t.Errorf("%s sent, warnings %v", n, warnings)
		}
		return n
	}
	const toRoom = "select realtime.send('{}', 'ev', 'room')"
	const toOther = "select realtime.send('{}', 'ev', 'other')"
	got := []string{
		send("authenticated", `{"ok":"yes"}`, toRoom),
		send("authenticated", `{"ok":"no"}`, toRoom),
		send("authenticated", `{"ok":"yes"}`, toOther),
		send("anon", `{"ok":"yes"}`, toRoom),
	}
	if diff := cmp.Diff([]string{"1", "0", "0", "0"}, got); diff != "" {
		t.Error(diff)
	}
	if got := ask(t, p, "select string_agg(who || topic, ',') from public.seen"); got != "authenticatedroom" {
		t.Errorf("the trigger saw %s", got)
	}
	db.ExecAs("postgres", "create policy never on realtime.messages as restrictive for insert to authenticated with check (false)")
	got = []string{
		send("authenticated", `{"ok":"yes"}`, toRoom),
		send("authenticated", `{}`, "select public.definer_send()"),
	}
	if diff := cmp.Diff([]string{"0", "1"}, got); diff != "" {
		t.Error(diff)
	}
	if got := ask(t, p, `select string_agg(concat_ws(' ', p.proname, prosecdef, proconfig, provolatile, proowner::regrole), ',' order by proname)
		from pg_proc p where pronamespace = 'realtime'::regnamespace`); got != "broadcast_changes f v supabase_realtime_admin,send f v supabase_realtime_admin,"+
		"send_binary f v supabase_realtime_admin,topic f s supabase_realtime_admin" {
		t.Errorf("functions: %s", got)
	}
}

// spec: pgchanges:122
func TestBroadcastChanges(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("supabase_admin")
	db.ExecAs("postgres", `
create table notes (id int primary key, body text);
create function tell() returns trigger language plpgsql security definer as $$
begin perform realtime.broadcast_changes('notes:' || coalesce(new.id, old.id), 'ev', TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, new, old, TG_LEVEL); return null; end $$;
create trigger tell after insert or update or delete on notes for each row execute function tell();
insert into notes values (1, 'a'); update notes set body = 'b'; delete from notes;`)
	got := ask(t, p, `select string_agg(concat_ws('|', topic, event, private, payload - 'id', (payload ->> 'id') = id::text), e'\n' order by payload ->> 'operation' desc) from realtime.messages`)
	want := strings.Join([]string{
		`notes:1|ev|t|{"table": "notes", "record": {"id": 1, "body": "b"}, "schema": "public", "operation": "UPDATE", "old_record": {"id": 1, "body": "a"}}|t`,
		`notes:1|ev|t|{"table": "notes", "record": {"id": 1, "body": "a"}, "schema": "public", "operation": "INSERT", "old_record": null}|t`,
		`notes:1|ev|t|{"table": "notes", "record": null, "schema": "public", "operation": "DELETE", "old_record": {"id": 1, "body": "b"}}|t`,
	}, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	db.ExecAs("postgres", `
create function tell_all() returns trigger language plpgsql as $$
begin perform realtime.broadcast_changes('t', 'ev', TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, null::notes, null::notes, TG_LEVEL); return null; end $$;
create table others (id int);
create trigger tell_all after insert on others for each statement execute function tell_all();
create trigger tell_trunc after truncate on others for each statement execute function tell_all();`)
	for sql, want := range map[string]string{
		"insert into others values (1)": "Failed to process the row: function can only be triggered for each row, not for each statement",
		"select realtime.broadcast_changes('t', 'e', 'TRUNCATE', 'n', 'public', null::notes, null::notes)": "Failed to process the row: Unexpected operation type: TRUNCATE",
		"select realtime.broadcast_changes('t', 'e', null, 'n', 'public', null::notes, null::notes)":       "Failed to process the row: Unexpected operation type: <NULL>",
	} {
		_, err := db.Pool("postgres").Exec(t.Context(), sql)
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Message != want {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// spec: pgchanges:134 pgchanges:139 pgchanges:133
func TestMessagePartitions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("supabase_admin")
	const list = `select coalesce(string_agg(((right(inhrelid::regclass::text, 10)::text)), ' ' order by inhrelid::regclass::text), '') from pg_inherits where inhparent = 'realtime.messages'::regclass`
	days := func(from, to int) string {
		return ask(t, p, "select string_agg(to_char((now() at time zone 'utc')::date + i, 'YYYY_MM_DD'), ' ') from generate_series($1::int, $2::int) i", from, to)
	}
	if got := ask(t, p, list); got != days(-1, 3) {
		t.Errorf("after Migrate: %s", got)
	}
	if got := ask(t, p, "select sluice.make_message_partitions()::text"); got != "0" {
		t.Errorf("made again: %s", got)
	}
	if got := ask(t, p, "select sluice.make_message_partitions(-10, 4)::text"); got != "10" {
		t.Errorf("made: %s", got)
	}
	if got := ask(t, p, "select sluice.drop_message_partitions()::text"); got != "7" {
		t.Errorf("dropped: %s", got)
	}
	if got := ask(t, p, list); got != days(-3, 4) {
		t.Errorf("left: %s", got)
	}
	db.Exec("select sluice.make_message_partitions(-10, 4)")
	if err := pg.Maintain(t.Context(), p); err != nil {
		t.Error(err)
	}
	if got := ask(t, p, list); got != days(-3, 4) {
		t.Errorf("after Maintain: %s", got)
	}
	// Somebody else's partitions stay, whatever their ranges are.
	db.Exec("do $$ begin execute format('create table realtime.messages_all partition of realtime.messages for values from (%L) to (%L)', '2000-01-01', '2001-01-01'); end $$")
	if got := ask(t, p, "select sluice.drop_message_partitions()::text || (to_regclass('realtime.messages_all') is not null)"); got != "0true" {
		t.Errorf("dropped: %s", got)
	}
	if got := ask(t, p, `select string_agg(distinct relowner::regrole::text, ',') from pg_class where relnamespace = 'realtime'::regnamespace and relname like 'messages_2%'`); got != "supabase_realtime_admin" {
		t.Errorf("owners: %s", got)
	}
	for _, bad := range []string{"1, 0", "-1000, 0"} {
		if _, err := p.Exec(t.Context(), "select sluice.make_message_partitions("+bad+")"); pg.SQLState(err) != "22023" {
			t.Errorf("days %s: %v", bad, err)
		}
	}

	// Without a partition for today send only warns.
	db.Exec("do $$ declare r regclass; begin for r in select inhrelid from pg_inherits where inhparent = 'realtime.messages'::regclass loop execute 'drop table ' || r; end loop; end $$")
	warnings, err := runWith(t, db, "postgres", "{}", "select realtime.send('{}', 'e', 't')")
	if diff := cmp.Diff([]string{`WarnSendingBroadcastMessage: no partition of relation "messages" found for row`}, warnings); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestMessagesTable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := db.Pool("supabase_admin")
	got := ask(t, p, `select string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), case when attnotnull then 'not null' end, pg_get_expr(adbin, adrelid)), ', ' order by attnum)
		from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum where attrelid = 'realtime.messages'::regclass and attnum > 0`)
	want := "topic text not null, extension text not null, payload jsonb, event text, private boolean false, updated_at timestamp without time zone not null now(), " +
		"inserted_at timestamp without time zone not null now(), id uuid not null gen_random_uuid(), binary_payload bytea"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = ask(t, p, `select string_agg(r || ':' || (select string_agg(left(p, 1), '') from unnest(array['select', 'insert', 'update', 'delete']) p where has_table_privilege(r, 'realtime.messages', p)), ' ')
		from unnest(array['anon', 'authenticated', 'service_role', 'postgres', 'dashboard_user']) r`)
	if got != "anon:siu authenticated:siu service_role:siu postgres:siud dashboard_user:siud" {
		t.Errorf("privileges: %s", got)
	}
	// API roles see and write nothing without a policy, nor reach a partition.
	db.Exec("insert into realtime.messages (topic, extension) values ('t', 'broadcast')")
	part := ask(t, p, "select inhrelid::regclass::text from pg_inherits where inhparent = 'realtime.messages'::regclass order by 1 limit 1")
	rest := db.Pool("authenticator")
	for sql, want := range map[string]error{
		"select 1 / count(*) from realtime.messages":                         sluice.ErrInvalid, // none: division by zero
		"insert into realtime.messages (topic, extension) values ('t', 'x')": sluice.ErrForbidden,
		"delete from realtime.messages":                                      sluice.ErrForbidden,
		"select * from " + part:                                              sluice.ErrForbidden,
	} {
		got, err := rest.AsEach(t.Context(), sql, []pg.EachCheck{{Claims: user(alice)}, {Claims: sluice.Claims{Role: "anon"}}}, pg.AsOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got {
			if !errors.Is(r.Err, want) {
				t.Errorf("%s: %v", sql, r.Err)
			}
		}
	}
	if got := ask(t, p, "select (to_regclass('realtime.subscription') is null and to_regtype('realtime.action') is null)::text"); got != "true" {
		t.Error("realtime.subscription stays out")
	}
}
