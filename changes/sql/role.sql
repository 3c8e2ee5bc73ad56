-- What one role ($1) may do with a table ($2: oid, $3: the table whose policies
-- protect it, $4: owner of that one). No row: the role does not exist.
select json_build_object(
  'usage', has_schema_privilege(r.oid, c.relnamespace, 'USAGE'),
  'bypass', r.rolsuper or r.rolbypassrls,
  'owner', pg_has_role(r.oid, $4::bigint::oid, 'USAGE'),
  'columns', coalesce((select json_agg(a.attnum) from pg_attribute a
     where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')), '[]'),
  'policies', coalesce((select json_agg(q.polname) from pg_policy q
     where q.polrelid = $3::bigint::oid and q.polcmd in ('r', '*')
       and exists (select from unnest(q.polroles) m where m = 0 or pg_has_role(r.oid, m, 'USAGE'))), '[]'))
  from pg_roles r cross join pg_class c
 where r.rolname = $1 and c.oid = $2
