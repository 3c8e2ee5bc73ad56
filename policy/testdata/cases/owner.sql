-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, user_id uuid);
insert into public.docs values
  (1, '11111111-0000-4000-8000-000000000001'),
  (2, '22222222-0000-4000-8000-000000000002'),
  (3, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (auth.uid() = user_id);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1
-- as second: {"role":"authenticated","sub":"22222222-0000-4000-8000-000000000002"}
-- sees: 2
-- as anon: {"role":"anon"}
-- sees:
-- as service: {"role":"service_role"}
-- sees: 1 2 3
-- as nobody: {"role":"authenticated"}
-- sees:
-- as broken: {"role":"authenticated","sub":"no uuid"}
-- sees:
