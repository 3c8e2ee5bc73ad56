-- tier: 3
-- table: public.docs
-- key: id
-- gap: schema usage
create table public.docs (id integer primary key, n integer);
insert into public.docs values
  (1, 1),
  (2, 2);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create function hidden.shown(n integer) returns boolean language sql stable as 'select n > 1';
-- A stored policy calls the function; whoever reads its text needs the schema.
create policy p on public.docs for select using (hidden.shown(n));

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 2
-- as service: {"role":"service_role"}
-- sees: 1 2
