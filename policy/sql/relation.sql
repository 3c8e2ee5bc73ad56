-- What a policy has to know about a table ($1: oid) that it reads.
select json_build_object(
  'schema', n.nspname, 'name', c.relname, 'kind', c.relkind, 'owner', c.relowner::bigint,
  'rls', c.relrowsecurity, 'force', c.relforcerowsecurity,
  'columns', coalesce((select json_agg(json_build_object('num', a.attnum, 'name', a.attname, 'type', a.atttypid::bigint) order by a.attnum)
     from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]'),
  'policies', coalesce((select json_agg(json_build_object(
        'name', q.polname, 'permissive', q.polpermissive, 'qual', q.polqual::text,
        'roles', (select json_agg(r::bigint) from unnest(q.polroles) r)) order by q.polname)
     from pg_policy q where q.polrelid = c.oid and q.polcmd in ('r', '*')), '[]'))
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.oid = $1
