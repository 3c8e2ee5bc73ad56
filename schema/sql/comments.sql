-- What is said about the exposed schemas ($1).
select n.nspname, obj_description(n.oid, 'pg_namespace')
  from pg_namespace n
 where n.nspname = any ($1) and obj_description(n.oid, 'pg_namespace') is not null
