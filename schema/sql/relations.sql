-- Relations of the exposed schemas ($1), their columns and primary keys.
-- Partitions are served through their parent alone.
select n.nspname, c.relname, c.relkind::text,
       coalesce((select json_agg(json_build_object(
           'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'oid', a.atttypid::bigint,
           'category', t.typcategory, 'base', coalesce(nullif(t.typbasetype, 0), t.oid)::bigint, 'null', not a.attnotnull,
           'default', pg_get_expr(d.adbin, d.adrelid), 'identity', a.attidentity, 'generated', a.attgenerated) order by a.attnum)
         from pg_attribute a
         join pg_type t on t.oid = a.atttypid
         left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]'),
       coalesce((select json_agg(a.attname order by k.nth)
         from pg_index i cross join lateral unnest(i.indkey::int2[]) with ordinality k (num, nth)
         join pg_attribute a on a.attrelid = c.oid and a.attnum = k.num
        where i.indrelid = c.oid and i.indisprimary), '[]'),
       pg_relation_is_updatable(c.oid, true)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any ($1) and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
 order by n.nspname, c.relname
