-- The tables $1 (schemas) and $2 (names), or up to 50 published ones when none
-- is named, and what the roles $3 may do with each.
select coalesce(json_agg(json_build_object(
  'schema', x.nsp, 'name', x.rel,
  'exists', c.oid is not null,
  'published', exists (select from pg_publication_tables p
                        where p.pubname = 'supabase_realtime' and p.schemaname = x.nsp and p.tablename = x.rel),
  'rls', coalesce(c.relrowsecurity, false),
  'identity', coalesce(c.relreplident::text, ''),
  'key', exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary),
  'policies', (select count(*) from pg_policy q where q.polrelid = c.oid and q.polcmd in ('r', '*') and q.polpermissive),
  'roles', coalesce((
    select json_agg(json_build_object(
        'role', r.rolname,
        'usage', has_schema_privilege(r.oid, n.oid, 'USAGE'),
        'select', has_any_column_privilege(r.oid, c.oid, 'SELECT'),
        'bypass', r.rolsuper or r.rolbypassrls,
        'policies', (select count(*) from pg_policy q
                      where q.polrelid = c.oid and q.polcmd in ('r', '*') and q.polpermissive
                        and exists (select from unnest(q.polroles) m where m = 0 or pg_has_role(r.oid, m, 'USAGE'))))
      order by r.rolname)
    from pg_roles r where r.rolname = any ($3::text[]) and c.oid is not null), '[]'))
  order by x.nsp, x.rel), '[]')
  from (select * from unnest($1::text[], $2::text[]) as named (nsp, rel)
        union all
        (select schemaname, tablename from pg_publication_tables
          where pubname = 'supabase_realtime' and cardinality($1::text[]) = 0 order by 1, 2 limit 50)) x (nsp, rel)
  left join pg_namespace n on n.nspname = x.nsp
  left join pg_class c on c.relnamespace = n.oid and c.relname = x.rel and c.relkind in ('r', 'p')
