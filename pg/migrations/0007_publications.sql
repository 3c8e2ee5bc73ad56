-- The publication that users edit, and the one that Sluice streams.
--
-- A slot whose publication is dropped fails for ever at the first change after
-- the drop. Users may drop and create supabase_realtime; they cannot drop
-- sluice, which mirrors it.

do $$
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
    if exists (select from pg_catalog.pg_roles where rolname = 'postgres') then
      perform sluice.give('publication supabase_realtime', 'postgres');
    end if;
  end if;
end $$;

-- Brings publication sluice in step with supabase_realtime and returns whether
-- anything was changed. It may be called at any time, by several sessions.
--
--  * Tables: those that supabase_realtime publishes now, with their column lists
--    and row filters; FOR ALL TABLES and TABLES IN SCHEMA are expanded. The schema
--    sluice is left out. A publication of partitioned tables as leaves is mirrored
--    as leaves.
--  * realtime.messages is always in it, as one table: publish_via_partition_root
--    is on. A table is published under the name of its topmost published ancestor,
--    so the leaves of users' tables keep their own names.
--  * Actions: those of supabase_realtime, and insert, which realtime.messages
--    needs. PostgreSQL refuses UPDATE and DELETE of a table that publishes them and
--    has no replica identity. As ours publishes them only when the user's own
--    publication does, for the same tables, it never refuses what theirs allows.
--    A reader must still drop inserts when supabase_realtime does not publish them.
--
-- A table that cannot be added (not owned, locked for too long) is a warning and
-- does not keep the others out.
--
-- The setting sluice.syncing keeps the event trigger from entering again for our
-- own commands; as a SET clause of the function only a superuser could define it.
create function sluice.sync_publication() returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
  theirs record;
  ours record;
  messages oid := to_regclass('realtime.messages');
  actions text := 'insert';
  changed boolean := false;
  t record;
begin
  perform set_config('sluice.syncing', 'on', true);
  select p.*, to_jsonb(p) ->> 'pubgencols' as gencols into ours from pg_publication p where p.pubname = 'sluice';
  if not found then
    create publication sluice with (publish = 'insert', publish_via_partition_root = true);
    changed := true;
    select p.*, to_jsonb(p) ->> 'pubgencols' as gencols into ours from pg_publication p where p.pubname = 'sluice';
  end if;

  select p.* into theirs from pg_publication p where p.pubname = 'supabase_realtime';
  if theirs.pubupdate then actions := actions || ', update'; end if;
  if theirs.pubdelete then actions := actions || ', delete'; end if;
  if theirs.pubtruncate then actions := actions || ', truncate'; end if;
  if (ours.pubinsert, ours.pubupdate, ours.pubdelete, ours.pubtruncate, ours.pubviaroot) is distinct from
     (true, coalesce(theirs.pubupdate, false), coalesce(theirs.pubdelete, false), coalesce(theirs.pubtruncate, false), true) then
    execute format('alter publication sluice set (publish = %L, publish_via_partition_root = true)', actions);
    changed := true;
  end if;
  -- From 18 on a publication can carry stored generated columns.
  if ours.gencols is distinct from 's' and ours.gencols is not null then
    execute 'alter publication sluice set (publish_generated_columns = stored)';
    changed := true;
  end if;

  for t in
    with want as (
      select g.relid, n.nspname, c.relname, r.prattrs::text as attrs, pg_get_expr(r.prqual, r.prrelid) as filter
        from pg_publication p
        cross join lateral pg_get_publication_tables(p.pubname::text) g
        join pg_class c on c.oid = g.relid
        join pg_namespace n on n.oid = c.relnamespace
        left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = g.relid
       where p.pubname = 'supabase_realtime'
         and n.nspname <> 'sluice'
         and c.relkind in ('r', 'p') and c.relpersistence = 'p'
         and (messages is null or g.relid <> messages
              and not (c.relispartition and exists (select from pg_partition_ancestors(g.relid) a where a.relid = messages)))
      union all
      select c.oid, n.nspname, c.relname, null, null
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where c.oid = messages
    ), have as (
      select r.prrelid as relid, n.nspname, c.relname, r.prattrs::text as attrs, pg_get_expr(r.prqual, r.prrelid) as filter
        from pg_publication_rel r
        join pg_class c on c.oid = r.prrelid
        join pg_namespace n on n.oid = c.relnamespace
       where r.prpubid = ours.oid
    )
    select coalesce(w.nspname, h.nspname) as nspname, coalesce(w.relname, h.relname) as relname, w.relid is not null as wanted, h.relid is not null as present,
           w.filter,
           (select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
              from unnest(w.attrs::int2vector) k join pg_attribute a on a.attrelid = w.relid and a.attnum = k) as columns
      from want w full join have h on h.relid = w.relid
     where (w.relid is null) is distinct from (h.relid is null)
        or w.attrs is distinct from h.attrs
        or w.filter is distinct from h.filter
     -- Leaves go before their root comes, and the other way round.
     order by w.relid is not null, 1, 2
  loop
    begin
      if t.present then
        execute format('alter publication sluice drop table %I.%I', t.nspname, t.relname);
      end if;
      if t.wanted then
        execute format('alter publication sluice add table %I.%I%s%s', t.nspname, t.relname,
          ' (' || t.columns || ')', ' where (' || t.filter || ')');
      end if;
      changed := true;
    exception when others then
      raise warning 'Sluice could not bring table %.% in its publication in step with supabase_realtime: %', t.nspname, t.relname, sqlerrm;
    end;
  end loop;
  perform set_config('sluice.syncing', '', true);
  return changed;
end $$;

revoke all on function sluice.sync_publication() from public;

select sluice.sync_publication();

-- Nobody but the owner looks into the internal schema.
revoke all on all tables in schema sluice from public;
revoke all on all functions in schema sluice from public;
