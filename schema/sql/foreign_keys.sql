-- Foreign keys outside of the system's schemas. Partitions repeat those of
-- their parent and are left out. unique: the columns are the whole of a primary
-- key or unique index, so that there is at most one row on this side. The last
-- column is where each column's operator = is at home, empty for another name.
select c.conname, c.conrelid::oid, c.confrelid::oid, c.conkey::int2[], c.confkey::int2[],
       exists (select from pg_index i
                where i.indrelid = c.conrelid and i.indisunique and i.indpred is null and i.indexprs is null and i.indnkeyatts = cardinality(c.conkey)
                  and (i.indkey::int2[])[0:i.indnkeyatts - 1] @> c.conkey and (i.indkey::int2[])[0:i.indnkeyatts - 1] <@ c.conkey),
       (select array_agg(case when o.oprname = '=' then s.nspname else '' end order by u.nth)::text[]
          from unnest(c.conpfeqop) with ordinality u (oid, nth) join pg_operator o on o.oid = u.oid join pg_namespace s on s.oid = o.oprnamespace)
  from pg_constraint c
  join pg_class t on t.oid = c.conrelid
  join pg_class f on f.oid = c.confrelid
  join pg_namespace n on n.oid = t.relnamespace
 where c.contype = 'f' and not t.relispartition and not f.relispartition and n.nspname not in ('pg_catalog', 'information_schema')
 order by c.conname, c.oid
