-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, n integer);
insert into public.docs values
  (1, 1),
  (2, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create function public.shown(d public.docs) returns boolean language sql stable as 'select d.n is not null';
create policy p on public.docs for select using (public.shown(docs));

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1
