-- The published tables that a binding names ($1: schema or *, $2: table or *).
select c.oid::bigint, n.nspname, c.relname
  from pg_get_publication_tables('supabase_realtime') t
  join pg_class c on c.oid = t.relid
  join pg_namespace n on n.oid = c.relnamespace
 where exists (select from pg_publication where pubname = 'supabase_realtime')
   and ($1 = '*' or n.nspname = $1) and ($2 = '*' or c.relname = $2)
 order by n.nspname, c.relname
