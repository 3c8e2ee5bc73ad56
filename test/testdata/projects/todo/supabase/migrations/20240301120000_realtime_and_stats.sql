begin;
  -- remove the supabase_realtime publication
  drop publication if exists supabase_realtime;

  -- re-create the supabase_realtime publication with no tables
  create publication supabase_realtime;
commit;

-- add a table called 'todos' to the publication
alter publication supabase_realtime add table todos;
alter table todos replica identity full;

create or replace function public.todo_stats()
returns table (total bigint, done bigint)
language sql stable
as $$
  select count(*), count(*) filter (where is_complete) from public.todos;
$$;
