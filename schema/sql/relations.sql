-- Relations of the exposed schemas ($1), their columns and primary keys.
-- Partitions are served through their parent alone. base is the type below all
-- domains.
with recursive bases (oid, base) as (
  select t.oid, t.typbasetype from pg_type t where t.typtype = 'd'
  union all
  select b.oid, t.typbasetype from bases b join pg_type t on t.oid = b.base where t.typtype = 'd'
), domains (oid, base) as materialized (
  select b.oid, b.base from bases b join pg_type t on t.oid = b.base where t.typtype <> 'd'
)
select n.nspname, c.relname, c.oid::oid, c.reltype::oid, c.relkind::text,
       coalesce((select json_agg(json_build_object(
           'name', a.attname, 'number', a.attnum, 'type', format_type(a.atttypid, a.atttypmod), 'oid', a.atttypid::bigint,
           'category', t.typcategory, 'base', coalesce(v.base, t.oid)::bigint,
           'null', not a.attnotnull, 'default', coalesce(pg_get_expr(d.adbin, d.adrelid), t.typdefault,
             case when a.attidentity = 'd' then format('nextval(%L::regclass)', pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname)) end),
           'identity', a.attidentity, 'generated', a.attgenerated, 'comment', col_description(c.oid, a.attnum),
           'length', case when coalesce(v.base, t.oid) in ('bpchar'::regtype, 'varchar'::regtype) then greatest(coalesce(nullif(a.atttypmod, -1), t.typtypmod) - 4, 0) end,
           'item', case when t.typcategory = 'A' then (select u.typelem::bigint from pg_type u where u.oid = coalesce(v.base, t.oid)) end,
           'labels', case when t.typcategory = 'E' then (select json_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = coalesce(v.base, t.oid)) end) order by a.attnum)
         from pg_attribute a
         join pg_type t on t.oid = a.atttypid
         left join domains v on v.oid = t.oid
         left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]'),
       coalesce((select json_agg(a.attname order by k.nth)
         from pg_index i cross join lateral unnest(i.indkey::int2[]) with ordinality k (num, nth)
         join pg_attribute a on a.attrelid = c.oid and a.attnum = k.num
        where i.indrelid = c.oid and i.indisprimary and k.nth <= i.indnkeyatts), '[]'),
       pg_relation_is_updatable(c.oid, true), coalesce(obj_description(c.oid, 'pg_class'), '')
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any ($1) and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
 order by n.nspname, c.relname
