-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, title text);
insert into public.docs values
  (1, 'a'),
  (2, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (true);

-- as anon: {"role":"anon"}
-- sees: 1 2
-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1 2
