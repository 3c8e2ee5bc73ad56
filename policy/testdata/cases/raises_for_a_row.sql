-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, n integer);
insert into public.docs values
  (1, 0),
  (2, 1),
  (3, null),
  (4, 100);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (100 / n > 1);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 2
