-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, is_public boolean, owner uuid);
insert into public.docs values
  (1, true, '11111111-0000-4000-8000-000000000001'),
  (2, true, null),
  (3, false, '11111111-0000-4000-8000-000000000001');
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
-- A sub-select is computed when its value is needed: public rows are shown.
create policy p on public.docs for select using (is_public or owner = (select auth.uid()));

-- as broken: {"role":"authenticated","sub":"no uuid"}
-- sees: 1 2
-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1 2 3
