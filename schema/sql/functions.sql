-- Functions of the exposed schemas ($1) that can be called with named
-- arguments, or with a single unnamed one. Types of arguments are without
-- length, which would cut values.
select n.nspname, p.proname, p.provolatile::text, p.proretset, t.typname = 'void' and t.typnamespace = 'pg_catalog'::regnamespace,
       t.typtype = 'c' or t.typname = 'record' or coalesce(b.typtype = 'c', false) or x.outs,
       t.typname = 'record' and not x.outs, coalesce(b.oid, t.oid)::oid, p.proretset and p.prorows = 1, p.provariadic <> 0,
       coalesce((select json_agg(json_build_object(
           'name', coalesce(p.proargnames[place], ''), 'type', format_type(u.oid, -1), 'oid', u.oid::bigint, 'item', (select e.typelem::bigint from pg_type e where e.oid = u.oid and e.typcategory = 'A'),
           'optional', i > p.pronargs - p.pronargdefaults) order by nth)
         from (select u.oid, u.nth::int, coalesce(m.k, u.nth)::int as place, u.nth::int as i
                 from unnest(p.proargtypes::oid[]) with ordinality u (oid, nth)
                 left join (select row_number() over (order by k) as nth, k from unnest(p.proargmodes) with ordinality m (mode, k) where mode in ('i', 'b', 'v')) m using (nth)) u), '[]'),
       coalesce((select json_agg(json_build_array(split_part(s, '=', 1), substr(s, strpos(s, '=') + 1))) from unnest(p.proconfig) s), '[]'),
       coalesce(obj_description(p.oid, 'pg_proc'), '')
  from pg_proc p
  join pg_namespace n on n.oid = p.pronamespace
  join pg_type t on t.oid = p.prorettype
  left join pg_type b on b.oid = t.typbasetype
  cross join lateral (select exists (select from unnest(p.proargmodes) m where m in ('o', 'b', 't')) as outs) x
 where n.nspname = any ($1) and p.prokind = 'f' and t.typname not in ('trigger', 'event_trigger')
 order by n.nspname, p.proname, p.pronargs, p.oid
