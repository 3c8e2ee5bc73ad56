-- The table of a name ($1), as explain shows it.
select json_build_object(
  'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname,
  'columns', (select json_agg(a.attname order by a.attnum) from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
  'guard', guard.oid::bigint, 'guardName', guard.oid::regclass::text, 'force', coalesce(guard.relforcerowsecurity, false),
  'policies', coalesce((select json_agg(json_build_object(
        'name', q.polname, 'permissive', q.polpermissive, 'using', coalesce(pg_get_expr(q.polqual, q.polrelid), ''),
        'to', (select json_agg(case when r = 0 then 'public' else pg_get_userbyid(r) end) from unnest(q.polroles) r)) order by q.polname)
      from pg_policy q where q.polrelid = guard.oid and q.polcmd in ('r', '*')), '[]'))
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  left join lateral (
    select g.* from pg_class g
      left join pg_partition_ancestors(c.oid) with ordinality as up (relid, level) on up.relid = g.oid
     where (g.oid = c.oid or up.relid is not null) and g.relrowsecurity
     order by g.oid <> c.oid, up.level desc limit 1) guard on true
 where c.oid = to_regclass($1) and c.relkind in ('r', 'p')
