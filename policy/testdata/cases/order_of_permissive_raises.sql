-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, n integer);
insert into public.docs values
  (1, 0),
  (2, 5);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy a_shows on public.docs for select using (n = 0);
create policy b_raises on public.docs for select using (1 / n >= 0);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 2
