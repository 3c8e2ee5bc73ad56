-- tier: 3
-- table: public.docs
-- key: id
-- gap: system column
create table public.docs (id integer primary key, n integer);
insert into public.docs values
  (1, 1);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
-- A row image has no ctid.
create policy p on public.docs for select using (ctid is not null);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1
