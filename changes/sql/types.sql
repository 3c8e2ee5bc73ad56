-- The types in $1 (oids) and everything they are made of. The search_path is
-- empty, so that names of types are qualified.
with recursive need (oid) as (
  select unnest($1::oid[])
  union
  select x.oid from need join pg_type t on t.oid = need.oid
   cross join lateral (
     select t.typbasetype where t.typtype = 'd'
     union all select t.typelem where t.typcategory = 'A' and t.typelem <> 0
     union all select a.atttypid from pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) x (oid)
)
select t.oid::bigint, t.typname, format_type(t.oid, null), format_type(t.oid, -1), coalesce(own.nspname, ''),
       case when t.typtype = 'd' then t.typbasetype else 0 end::bigint,
       case when t.typcategory = 'A' then t.typelem else 0 end::bigint, t.typdelim::text,
       coalesce((select json_agg(json_build_array(a.attname, a.atttypid::bigint) order by a.attnum) from pg_attribute a
         where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped), '[]')
  from need join pg_type t on t.oid = need.oid
  -- The schema of an extension type's own operators. Only a superuser makes base types.
  left join lateral (
    select n.nspname from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
     where t.typtype = 'b' and o.oprname = '=' and o.oprleft = t.oid and o.oprright = t.oid and n.nspname <> 'pg_catalog' limit 1) own on true
