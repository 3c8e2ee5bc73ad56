-- Primary keys of tables outside of the system's schemas.
select i.indrelid::oid, (i.indkey::int2[])[0:i.indnkeyatts - 1]
  from pg_index i
  join pg_class c on c.oid = i.indrelid
  join pg_namespace n on n.oid = c.relnamespace
 where i.indisprimary and not c.relispartition and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
