-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, team_id integer);
insert into public.docs values
  (1, 1),
  (2, 2),
  (3, null),
  (4, 10);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (team_id = any (translate(auth.jwt() -> 'app_metadata' ->> 'team_ids', '[]', '{}')::integer[]));

-- as both: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"team_ids":[1,2]}}
-- sees: 1 2
-- as texts: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"team_ids":["2"]}}
-- sees: 2
-- as none: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"team_ids":[]}}
-- sees:
-- as missing: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees:
-- as broken: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"team_ids":["x"]}}
-- sees:
