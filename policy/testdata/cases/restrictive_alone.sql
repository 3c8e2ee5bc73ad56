-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, title text);
insert into public.docs values
  (1, 'a');
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs as restrictive for select using (true);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees:
