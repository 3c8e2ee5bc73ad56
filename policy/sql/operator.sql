-- The name of an operator ($1: oid).
select n.nspname, o.oprname from pg_operator o join pg_namespace n on n.oid = o.oprnamespace where o.oid = $1
