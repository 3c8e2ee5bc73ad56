-- What a policy has to know about a type ($1: oid). The labels are those of an enum, or of the elements of an array of enums.
select json_build_object('schema', n.nspname, 'name', quote_ident(n.nspname) || '.' || quote_ident(t.typname), 'kind', t.typtype, 'base', t.typbasetype::bigint, 'array', t.typarray::bigint,
  'element', case when t.typcategory = 'A' then t.typelem else 0 end::bigint,
  'labels', coalesce((select json_object_agg(e.oid::text, e.enumlabel) from pg_enum e where e.enumtypid = t.oid), '{}'))
  from pg_type t join pg_namespace n on n.oid = t.typnamespace where t.oid = $1
