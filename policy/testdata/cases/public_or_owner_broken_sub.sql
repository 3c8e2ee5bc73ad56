-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, is_public boolean, owner uuid);
insert into public.docs values
  (1, true, '11111111-0000-4000-8000-000000000001'),
  (2, true, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
-- The planner computes auth.uid() to estimate how many rows it finds, so a sub that
-- is no uuid fails the whole select, not only the rows that are not public.
create policy p on public.docs for select using (is_public or owner = auth.uid());

-- as broken: {"role":"authenticated","sub":"no uuid"}
-- sees:
-- as array: {"role":"authenticated","sub":["x"]}
-- sees:
-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1 2
