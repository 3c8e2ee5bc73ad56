-- The tables of an app: those of schemas that are nobody else's.
select coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname) order by n.nspname, c.relname), '[]')
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^(pg_|_)'
   and n.nspname <> all ('{information_schema,auth,storage,realtime,extensions,vault,graphql,graphql_public,net,cron,pgsodium,supabase_migrations,supabase_functions}')
   and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
