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
create policy p on public.docs for select using (team_id = any (string_to_array(auth.jwt() ->> 'teams', ',')::integer[]));

-- as both: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","teams":"1,10"}
-- sees: 1 4
-- as spaces: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","teams":" 1 , 2"}
-- sees: 1 2
-- as none: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","teams":""}
-- sees:
-- as missing: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees:
-- as broken: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","teams":"1,x"}
-- sees:
