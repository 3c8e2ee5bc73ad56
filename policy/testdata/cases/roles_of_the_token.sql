-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, title text);
insert into public.docs values
  (1, 'a');
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (auth.jwt() -> 'app_metadata' -> 'roles' ? 'admin');

-- as admin: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"roles":["admin","x"]}}
-- sees: 1
-- as text: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"roles":"admin"}}
-- sees: 1
-- as object: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"roles":{"admin":false}}}
-- sees: 1
-- as nested: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"roles":[["admin"]]}}
-- sees:
-- as none: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees:
