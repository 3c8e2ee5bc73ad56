-- Changes when something changes that no logical message tells about: roles and
-- their members always; policies, grants and publications where there are no
-- event triggers.
select concat_ws(' ',
  (select md5(string_agg(concat_ws(',', oid, rolname, rolsuper, rolbypassrls, rolinherit), ';' order by oid)) from pg_roles),
  (select md5(string_agg(concat_ws(',', roleid, member, xmin), ';' order by roleid, member, oid_or_row)) from (select m.roleid, m.member, m.xmin, m.ctid::text as oid_or_row from pg_auth_members m) m),
  (select md5(string_agg(concat_ws(',', oid, xmin), ';' order by oid)) from pg_policy),
  (select md5(string_agg(concat_ws(',', oid, xmin), ';' order by oid)) from pg_publication),
  (select md5(string_agg(concat_ws(',', oid, xmin), ';' order by oid)) from pg_publication_rel))
