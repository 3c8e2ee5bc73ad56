-- What a policy has to know about a function ($1: oid) that it calls. builtin
-- tells those that initdb made.
select json_build_object(
  'schema', n.nspname, 'name', p.proname, 'language', l.lanname, 'kind', p.prokind, 'volatility', p.provolatile,
  'strict', p.proisstrict, 'definer', p.prosecdef, 'set', p.proretset, 'owner', p.proowner::bigint, 'variadic', p.provariadic <> 0,
  'builtin', p.oid::bigint < 16384 and n.nspname = 'pg_catalog',
  'source', p.prosrc, 'body', p.prosqlbody::text, 'config', to_json(p.proconfig), 'result', p.prorettype::bigint,
  'arguments', pg_get_function_identity_arguments(p.oid), 'returns', pg_get_function_result(p.oid),
  'inputs', (select coalesce(json_agg(t::bigint), '[]') from unnest(p.proargtypes) t),
  'outputs', p.proallargtypes is not null)
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
 where p.oid = $1
