-- What the login $1 is told to configure: pgrst.name, without the prefix. For
-- this database wins.
select distinct on (1) substr(split_part(s, '=', 1), 7), substr(s, strpos(s, '=') + 1)
  from pg_db_role_setting d cross join lateral unnest(d.setconfig) s
 where d.setrole = (select oid from pg_roles where rolname = $1) and s like 'pgrst.%'
   and d.setdatabase in (0, (select oid from pg_database where datname = current_database()))
 order by 1, d.setdatabase desc
