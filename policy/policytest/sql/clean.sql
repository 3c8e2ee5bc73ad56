-- Drops what a world made.
do $$
declare
  space oid[] := array['public', 'app', '"Odd Schema"', 'hidden']::regnamespace[]::oid[];
  what text;
begin
  foreach what in array array(
    select case relkind when 'v' then 'view ' else 'table ' end || oid::regclass from pg_class where relnamespace = any (space) and relkind in ('r', 'p', 'v')
    union all select 'function ' || oid::regprocedure from pg_proc where pronamespace = any (space) and prokind = 'f'
    union all select 'type ' || oid::regtype from pg_type where typnamespace = any (space) and typtype in ('e', 'd'))
  loop
    execute 'drop ' || split_part(what, ' ', 1) || ' if exists ' || substr(what, strpos(what, ' ')) || ' cascade';
  end loop;
end $$;
