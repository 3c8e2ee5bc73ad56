-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, is_public boolean, owner uuid);
insert into public.docs values
  (1, true, '11111111-0000-4000-8000-000000000001'),
  (2, false, '11111111-0000-4000-8000-000000000001'),
  (3, null, '11111111-0000-4000-8000-000000000001'),
  (4, true, null),
  (5, null, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (is_public or owner = auth.uid());

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1 2 3 4
-- as second: {"role":"authenticated","sub":"22222222-0000-4000-8000-000000000002"}
-- sees: 1 4
-- as anon: {"role":"anon"}
-- sees: 1 4
