-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, org_id uuid);
create schema concealed;
create function concealed.org() returns uuid language sql stable as $$ select (auth.jwt() -> 'app_metadata' ->> 'org_id')::uuid $$;
create function public.org() returns uuid language sql stable as $$ select concealed.org() $$;
create function public.kept() returns uuid language sql stable begin atomic select concealed.org(); end;
insert into public.docs values (1, '00000003-0000-4000-8000-00000000000a'), (2, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select to authenticated using (org_id = (select public.org()));
create policy q on public.docs for select to anon using (org_id = (select public.kept()));

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","app_metadata":{"org_id":"00000003-0000-4000-8000-00000000000a"}}
-- sees:
-- as anon: {"role":"anon","app_metadata":{"org_id":"00000003-0000-4000-8000-00000000000a"}}
-- sees: 1
