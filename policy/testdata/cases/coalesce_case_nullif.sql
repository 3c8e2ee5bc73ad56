-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, n integer, is_public boolean, user_id uuid);
insert into public.docs values
  (1, 0, null, '11111111-0000-4000-8000-000000000001'),
  (2, 2, true, null),
  (3, null, false, '11111111-0000-4000-8000-000000000001'),
  (4, 3, null, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (
  coalesce(is_public, user_id = auth.uid()) and case when n <> 0 then 10 / n > 4 else nullif(n, 0) is null end);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1 2
-- as second: {"role":"authenticated","sub":"22222222-0000-4000-8000-000000000002"}
-- sees: 2
