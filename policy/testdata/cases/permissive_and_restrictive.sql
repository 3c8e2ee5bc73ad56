-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, user_id uuid, archived boolean);
insert into public.docs values
  (1, '11111111-0000-4000-8000-000000000001', false),
  (2, '11111111-0000-4000-8000-000000000001', true),
  (3, '11111111-0000-4000-8000-000000000001', null),
  (4, '22222222-0000-4000-8000-000000000002', false);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy own on public.docs for select using (user_id = auth.uid());
create policy team on public.docs for select using (id = 4);
create policy live on public.docs as restrictive for select using (not archived);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1 4
-- as second: {"role":"authenticated","sub":"22222222-0000-4000-8000-000000000002"}
-- sees: 4
