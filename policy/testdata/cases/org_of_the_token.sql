-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, org_id uuid);
insert into public.docs values
  (1, 'aaaaaaaa-0000-4000-8000-000000000001'),
  (2, 'bbbbbbbb-0000-4000-8000-000000000002'),
  (3, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using ((auth.jwt() -> 'app_metadata' ->> 'org_id')::uuid = org_id);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"org_id":"aaaaaaaa-0000-4000-8000-000000000001"}}
-- sees: 1
-- as upper: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"org_id":"BBBBBBBB-0000-4000-8000-000000000002"}}
-- sees: 2
-- as none: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees:
-- as null: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":null}
-- sees:
-- as text: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":"x"}
-- sees:
-- as broken: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"org_id":"x"}}
-- sees:
