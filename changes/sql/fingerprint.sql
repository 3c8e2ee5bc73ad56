-- Changes when something changes that no logical message tells about: roles and
-- their members always; policies, grants, tables and publications where there are
-- no event triggers.
with published as (
  select distinct coalesce(a.relid, g.relid) as relid
    from pg_publication p
   cross join lateral pg_get_publication_tables(p.pubname::text) g
    left join lateral pg_partition_ancestors(g.relid) a on true
   where p.pubname = 'supabase_realtime'
)
select concat_ws(' ',
  (select md5(string_agg(concat_ws(',', oid, rolname, rolsuper, rolbypassrls, rolinherit), ';' order by oid)) from pg_roles),
  (select md5(string_agg(concat_ws(',', roleid, member, xmin), ';' order by roleid, member, oid_or_row)) from (select m.roleid, m.member, m.xmin, m.ctid::text as oid_or_row from pg_auth_members m) m),
  (select md5(string_agg(concat_ws(',', oid, xmin), ';' order by oid)) from pg_policy),
  (select md5(string_agg(concat_ws(',', oid, xmin), ';' order by oid)) from pg_publication),
  (select md5(string_agg(concat_ws(',', oid, xmin), ';' order by oid)) from pg_publication_rel),
  -- What policies read and call: functions, and tables that are not published.
  (select md5(string_agg(concat_ws(',', oid, xmin), ';' order by oid)) from pg_proc where oid >= 16384),
  (select md5(string_agg(concat_ws(',', oid, xmin), ';' order by oid)) from pg_class where oid >= 16384 and relkind in ('r', 'p')),
  (select md5(string_agg(concat_ws(',', oid, xmin), ';' order by oid)) from pg_namespace where nspname !~ '^pg_(toast_)?temp_'),
  (select md5(string_agg(concat_ws(',', c.oid, c.xmin), ';' order by c.oid)) from published p join pg_class c on c.oid = p.relid),
  (select md5(string_agg(concat_ws(',', a.attrelid, a.attnum, a.xmin), ';' order by a.attrelid, a.attnum))
     from published p join pg_attribute a on a.attrelid = p.relid and a.attnum > 0))
