-- What the pipeline has to know about one table ($1: oid). The search_path is that
-- of the checks, so that names in expressions are qualified where they must be.
select json_build_object(
  'schema', n.nspname, 'name', c.relname, 'owner', c.relowner::bigint,
  'identity', c.relreplident,
  'insert', coalesce(p.pubinsert, false), 'update', coalesce(p.pubupdate, false), 'delete', coalesce(p.pubdelete, false),
  'guard', guard.oid::bigint, 'alias', coalesce(guard.relname, c.relname), 'force', coalesce(guard.relforcerowsecurity, false),
  'guardOwner', coalesce(guard.relowner, c.relowner)::bigint,
  'columns', (select json_agg(json_build_object(
        'name', a.attname, 'num', a.attnum, 'type', a.atttypid::bigint, 'typname', t.typname,
        'key', a.attnum = any (coalesce(i.indkey::int2[], '{}'))) order by a.attnum)
      from pg_attribute a join pg_type t on t.oid = a.atttypid
     where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
  'policies', coalesce((select json_agg(json_build_object(
        'name', q.polname, 'permissive', q.polpermissive, 'expr', coalesce(pg_get_expr(q.polqual, q.polrelid), ''),
        'roles', (select json_agg(r::bigint) from unnest(q.polroles) r)) order by q.polname)
      from pg_policy q where q.polrelid = guard.oid and q.polcmd in ('r', '*')), '[]'))
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  left join pg_index i on i.indrelid = c.oid and i.indisprimary
  -- The table whose policies protect it: itself, or a partitioned ancestor.
  left join lateral (
    select g.* from pg_class g
      left join pg_partition_ancestors(c.oid) with ordinality as up (relid, level) on up.relid = g.oid
     where (g.oid = c.oid or up.relid is not null) and g.relrowsecurity
     order by g.oid <> c.oid, up.level desc limit 1) guard on true
  left join pg_publication p on p.pubname = 'supabase_realtime'
       and exists (select from pg_get_publication_tables('supabase_realtime') t where t.relid = c.oid)
 where c.oid = $1
