-- Drops what a world made.
do $$
declare
  space oid[] := array['public', 'app', '"Odd Schema"', 'hidden']::regnamespace[]::oid[];
  what text;
begin
  foreach what in array array(
    select case relkind when 'v' then 'view ' else 'table ' end || oid::regclass from pg_class where relnamespace = any (space) and relkind in ('r', 'p', 'v')
    union all select 'function ' || oid::regprocedure from pg_proc where pronamespace = any (space) and prokind = 'f'
    union all select 'type ' || oid::regtype from pg_type where typnamespace = any (space) and typtype in ('e', 'd', 'c') and (typrelid = 0 or exists (select from pg_class c where c.oid = typrelid and c.relkind = 'c'))
    union all select 'operator ' || oid::regoperator from pg_operator where oprnamespace = any (space)
    union all select 'collation ' || collnamespace::regnamespace || '.' || quote_ident(collname) from pg_collation where collnamespace = any (space))
  loop
    execute 'drop ' || split_part(what, ' ', 1) || ' if exists ' || substr(what, strpos(what, ' ')) || ' cascade';
  end loop;
end $$;
