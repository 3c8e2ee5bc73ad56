-- Roles that the login $1 may become, with their settings; those for this
-- database win. What a role may not set by itself is left out: it would fail
-- every request.
select r.rolname, coalesce((select json_agg(json_build_array(x.name, x.value) order by x.name)
         from (select distinct on (1) split_part(s, '=', 1) as name, substr(s, strpos(s, '=') + 1) as value
                 from pg_db_role_setting d cross join lateral unnest(d.setconfig) s
                where d.setrole = r.oid and d.setdatabase in (0, (select oid from pg_database where datname = current_database()))
                order by 1, d.setdatabase desc) x
         left join pg_settings g on g.name = x.name
        where g.name is null or g.context = 'user' or has_parameter_privilege(r.oid, x.name, 'SET')), '[]')
  from pg_roles r
 where pg_has_role($1, r.oid, 'MEMBER') and r.rolname <> $1
