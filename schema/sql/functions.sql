-- Functions of the exposed schemas ($1) that can be called with named
-- arguments, or with a single unnamed one.
select n.nspname, p.proname, p.provolatile::text, p.proretset, t.typname = 'void' and t.typnamespace = 'pg_catalog'::regnamespace,
       t.typtype = 'c' or t.typname = 'record' or coalesce(b.typtype = 'c', false) or exists (select from unnest(p.proargmodes) m where m in ('o', 'b', 't')),
       p.provariadic <> 0,
       coalesce((select json_agg(json_build_object(
           'name', coalesce(p.proargnames[i], ''), 'type', format_type(u.oid, null), 'oid', u.oid::bigint,
           'optional', i > p.pronargs - p.pronargdefaults) order by i)
         from unnest(p.proargtypes::oid[]) with ordinality as u (oid, nth)
         cross join lateral (select coalesce((select k from unnest(p.proargmodes) with ordinality m (mode, k)
              where m.mode in ('i', 'b', 'v') order by k offset u.nth - 1 limit 1), u.nth)::int) x (i)), '[]'),
       coalesce((select json_agg(json_build_array(split_part(s, '=', 1), substr(s, strpos(s, '=') + 1))) from unnest(p.proconfig) s), '[]')
  from pg_proc p
  join pg_namespace n on n.oid = p.pronamespace
  join pg_type t on t.oid = p.prorettype
  left join pg_type b on b.oid = t.typbasetype
 where n.nspname = any ($1) and p.prokind = 'f' and t.typname not in ('trigger', 'event_trigger')
 order by n.nspname, p.proname, p.pronargs, p.oid
