-- The policies of the tables $1 (schemas) and $2 (names), as PostgreSQL writes them.
select coalesce(json_agg(json_build_object(
    'schema', p.schemaname, 'table', p.tablename, 'name', p.policyname, 'command', p.cmd, 'permissive', p.permissive = 'PERMISSIVE',
    'roles', array_to_string(p.roles, ', '), 'using', coalesce(p.qual, ''), 'check', coalesce(p.with_check, ''))
  order by p.cmd, p.policyname), '[]')
  from pg_policies p join unnest($1::text[], $2::text[]) as x (nsp, rel) on p.schemaname = x.nsp and p.tablename = x.rel
