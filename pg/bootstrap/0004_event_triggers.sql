-- Event triggers: what changes in the catalog is told to REST (NOTIFY, as
-- PostgREST users know it) and to the stream, and Sluice's publication follows
-- the user's within the user's own transaction. Event triggers need a
-- superuser; databases without one are polled.

create or replace function extensions.pgrst_ddl_watch() returns event_trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select from pg_event_trigger_ddl_commands() c where c.schema_name is distinct from 'pg_temp') then
    notify pgrst, 'reload schema';
  end if;
end $$;

create or replace function extensions.pgrst_drop_watch() returns event_trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select from pg_event_trigger_dropped_objects() d where not d.is_temporary) then
    notify pgrst, 'reload schema';
  end if;
end $$;

drop event trigger if exists pgrst_ddl_watch;
create event trigger pgrst_ddl_watch on ddl_command_end execute function extensions.pgrst_ddl_watch();
drop event trigger if exists pgrst_drop_watch;
create event trigger pgrst_drop_watch on sql_drop execute function extensions.pgrst_drop_watch();

-- The message is {"kind": "ddl" | "drop", "tag": command tag, "objects":
-- [{"type", "schema", "identity", "oid"}], "more": true if objects were left
-- out}. GRANT and REVOKE name no object, only its type. Errors never reach the
-- user's command: a reader that missed a message finds out by its fingerprint.
create or replace function sluice.on_ddl_command_end() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  objects jsonb;
  n bigint;
begin
  if current_setting('sluice.syncing', true) = 'on' then
    return; -- our own commands, within sync_publication
  end if;
  begin
    select count(*),
           jsonb_agg(jsonb_strip_nulls(jsonb_build_object('type', object_type, 'schema', schema_name, 'identity', object_identity,
             'oid', nullif(objid, 0)::bigint))) filter (where nth <= 50)
      into n, objects
      from (select c.object_type, c.schema_name, c.object_identity, c.objid, row_number() over () as nth
              from pg_event_trigger_ddl_commands() c
             where c.schema_name is distinct from 'pg_temp' and not c.in_extension) c;
    if n > 0 then
      perform pg_logical_emit_message(true, 'sluice',
        jsonb_build_object('kind', 'ddl', 'tag', tg_tag, 'objects', objects, 'more', n > 50)::text);
    end if;
  exception when others then
    raise log 'sluice: catalog message for % was not written: %', tg_tag, sqlerrm;
  end;

  if tg_tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'CREATE SCHEMA', 'ALTER SCHEMA', 'CREATE EXTENSION',
                'CREATE PUBLICATION', 'ALTER PUBLICATION', 'DROP PUBLICATION', 'DROP OWNED')
     and to_regprocedure('sluice.sync_publication()') is not null then
    begin
      perform sluice.sync_publication();
    exception when others then
      raise warning 'Sluice could not bring its publication in step with supabase_realtime: %', sqlerrm
        using hint = 'Changes of newly published tables may be missing until it can; see the log of Sluice.';
    end;
  end if;
end $$;

create or replace function sluice.on_sql_drop() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  objects jsonb;
  n bigint;
begin
  select count(*),
         jsonb_agg(jsonb_strip_nulls(jsonb_build_object('type', object_type, 'schema', schema_name, 'identity', object_identity,
           'oid', nullif(objid, 0)::bigint))) filter (where nth <= 50)
    into n, objects
    from (select d.object_type, d.schema_name, d.object_identity, d.objid, row_number() over () as nth
            from pg_event_trigger_dropped_objects() d
           where not d.is_temporary
             and d.object_type not in ('type', 'toast table', 'default value', 'rule', 'index', 'sequence', 'internal trigger')) d;
  if n > 0 then
    perform pg_logical_emit_message(true, 'sluice',
      jsonb_build_object('kind', 'drop', 'tag', tg_tag, 'objects', objects, 'more', n > 50)::text);
  end if;
exception when others then
  raise log 'sluice: catalog message for % was not written: %', tg_tag, sqlerrm;
end $$;

revoke all on function sluice.on_ddl_command_end(), sluice.on_sql_drop() from public;

drop event trigger if exists sluice_ddl_command_end;
create event trigger sluice_ddl_command_end on ddl_command_end execute function sluice.on_ddl_command_end();
drop event trigger if exists sluice_sql_drop;
create event trigger sluice_sql_drop on sql_drop execute function sluice.on_sql_drop();
