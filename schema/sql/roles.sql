-- Roles that the login $1 may become, with their settings.
select r.rolname, coalesce((select json_agg(json_build_array(split_part(s, '=', 1), substr(s, strpos(s, '=') + 1)))
         from pg_db_role_setting d cross join lateral unnest(d.setconfig) s where d.setrole = r.oid and d.setdatabase = 0), '[]')
  from pg_roles r
 where pg_has_role($1, r.oid, 'MEMBER') and r.rolname <> $1
