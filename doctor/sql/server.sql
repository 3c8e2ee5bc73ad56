-- Settings and slots, and what Realtime needs around its own tables.
select json_build_object(
  'version', current_setting('server_version'),
  'walLevel', current_setting('wal_level'),
  'keepSize', current_setting('max_slot_wal_keep_size'),
  'maxSlots', current_setting('max_replication_slots')::int,
  'publication', exists (select from pg_publication where pubname = 'supabase_realtime'),
  'published', (select count(*) from pg_publication_tables where pubname = 'supabase_realtime'),
  'tenants', to_regclass('_realtime.tenants') is not null and has_table_privilege(to_regclass('_realtime.tenants'), 'SELECT'),
  'messages', to_regclass('realtime.messages') is not null,
  'partition', exists (
    select from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = to_regclass('realtime.messages') and c.relname = 'messages_' || to_char(now() at time zone 'utc', 'YYYY_MM_DD')),
  'messagesPublished', exists (select from pg_publication_tables where schemaname = 'realtime' and tablename like 'messages%'),
  'readPolicies', (select count(*) from pg_policy where polrelid = to_regclass('realtime.messages') and polcmd in ('r', '*') and polpermissive),
  'slots', coalesce((
    select json_agg(json_build_object(
        'name', s.slot_name, 'active', s.active, 'temporary', s.temporary, 'status', coalesce(s.wal_status, ''),
        'kept', case when pg_is_in_recovery() then 0 else coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint end)
      order by s.slot_name)
    from pg_replication_slots s), '[]'))
