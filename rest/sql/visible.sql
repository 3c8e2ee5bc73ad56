-- What the role may use of schema $1: relations and functions.
select 'r', c.relname
  from pg_catalog.pg_class c
 where c.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = $1::text) and c.relkind in ('r', 'p', 'v', 'm', 'f')
   and (pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE') or pg_catalog.has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE'))
union all
select distinct 'f', p.proname
  from pg_catalog.pg_proc p
 where p.pronamespace = (select oid from pg_catalog.pg_namespace where nspname = $1::text) and pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
