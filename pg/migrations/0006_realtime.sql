-- Schema realtime: Broadcast from Database and the authorization of channels.
-- realtime.subscription and its types are left out on purpose: claims of all
-- users would lie open in it, and nothing that a client does needs it. Their
-- names stay free.

do $migration$
declare
  owner constant text := 'supabase_realtime_admin';
  made boolean;
begin

made := sluice.make_table('realtime.messages', owner, $$
create table realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp not null default now(),
  inserted_at timestamp not null default now(),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  constraint messages_pkey primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
) partition by range (inserted_at);
create index messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic) where extension = 'broadcast' and private is true;
$$);
perform sluice.make_column('realtime.messages', 'binary_payload', 'bytea');
if made then
  grant select, insert, update on realtime.messages to anon, authenticated, service_role;
end if;
if exists (select from pg_catalog.pg_roles where rolname = 'postgres') then
  perform sluice.try_grant('grant all on realtime.messages to postgres');
end if;
if exists (select from pg_catalog.pg_roles where rolname = 'dashboard_user') then
  perform sluice.try_grant('grant usage on schema realtime to dashboard_user');
  perform sluice.try_grant('grant all on realtime.messages to dashboard_user');
end if;

perform sluice.make_function('realtime.topic()', owner, $ddl$
create function realtime.topic() returns text language sql stable as $$
  select nullif(current_setting('realtime.topic', true), '')::text
$$ $ddl$);

-- Runs as the caller: row level security of realtime.messages decides. Whatever
-- goes wrong is a warning, never an error in the caller's transaction.
perform sluice.make_function('realtime.send(jsonb, text, text, boolean)', owner, $ddl$
create function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void
language plpgsql as $$
declare
  message_id uuid;
  message_payload jsonb;
begin
  begin
    message_id := gen_random_uuid();
    message_payload := case
      when payload is null or payload ? 'id' then payload
      else jsonb_set(payload, '{id}', to_jsonb(message_id))
    end;
    perform set_config('realtime.topic', topic, true);
    insert into realtime.messages (id, payload, event, topic, private, extension)
    values (message_id, message_payload, event, topic, private, 'broadcast');
  exception when others then
    raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end
$$ $ddl$);

perform sluice.make_function('realtime.send_binary(bytea, text, text, boolean)', owner, $ddl$
create function realtime.send_binary(payload bytea, event text, topic text, private boolean default true) returns void
language plpgsql as $$
begin
  begin
    perform set_config('realtime.topic', topic, true);
    insert into realtime.messages (id, binary_payload, event, topic, private, extension)
    values (gen_random_uuid(), payload, event, topic, private, 'broadcast');
  exception when others then
    raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end
$$ $ddl$);

perform sluice.make_function('realtime.broadcast_changes(text, text, text, text, text, record, record, text)', owner, $ddl$
create function realtime.broadcast_changes(topic_name text, event_name text, operation text, table_name text, table_schema text, new record, old record, level text default 'ROW')
returns void language plpgsql as $$
declare
  new_record jsonb;
  old_record jsonb;
begin
  if level = 'STATEMENT' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;
  if (operation in ('INSERT', 'UPDATE', 'DELETE')) is not true then
    raise exception 'Unexpected operation type: %', operation;
  end if;
  if operation <> 'DELETE' then
    new_record := to_jsonb(new);
  end if;
  if operation <> 'INSERT' then
    old_record := to_jsonb(old);
  end if;
  perform realtime.send(
    jsonb_build_object('operation', operation, 'schema', table_schema, 'table', table_name, 'record', new_record, 'old_record', old_record),
    event_name, topic_name);
exception when others then
  raise exception 'Failed to process the row: %', sqlerrm;
end
$$ $ddl$);

end $migration$;

-- Makes the partitions of realtime.messages for the days from today + first to
-- today + last (UTC) that are missing, and returns how many it made. A range
-- that overlaps a partition made by someone else is left to that one, and a table
-- owned by someone else to its owner; both are warnings.
create function sluice.make_message_partitions(first integer default -1, last integer default 3) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  day date;
  name text;
  made integer := 0;
begin
  if first > last or last - first > 366 then
    raise exception 'days % to % are not a range of at most a year', first, last using errcode = 'invalid_parameter_value';
  end if;
  for i in first .. last loop
    day := current_date + i;
    name := 'messages_' || to_char(day, 'YYYY_MM_DD');
    continue when to_regclass('realtime.' || name) is not null;
    -- Two servers may come at the same time.
    perform pg_advisory_xact_lock(hashtextextended('sluice.make_message_partitions', 0));
    continue when to_regclass('realtime.' || name) is not null;
    begin
      execute format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)', name, day, day + 1);
      perform sluice.give('table realtime.' || name, 'supabase_realtime_admin');
      made := made + 1;
    exception when invalid_object_definition or insufficient_privilege then
      raise warning 'partition % of realtime.messages was not made: %', name, sqlerrm;
    end;
  end loop;
  return made;
end $$;

-- Drops the daily partitions of days before (now - 72 hours) and returns how
-- many. Only names of the form messages_YYYY_MM_DD are looked at.
create function sluice.drop_message_partitions() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  old regclass;
  dropped integer := 0;
begin
  for old in
    select c.oid::regclass
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'realtime.messages'::regclass
       and c.relname ~ '^messages_\d{4}_\d{2}_\d{2}$'
       and to_date(right(c.relname, 10), 'YYYY_MM_DD') < (now() - interval '72 hours')::date
     order by c.relname
  loop
    execute format('drop table %s', old);
    dropped := dropped + 1;
  end loop;
  return dropped;
end $$;

revoke all on function sluice.make_message_partitions(integer, integer), sluice.drop_message_partitions() from public;

select sluice.make_message_partitions();
