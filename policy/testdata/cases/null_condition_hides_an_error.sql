-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, n integer, is_public boolean);
insert into public.docs values
  (1, 0, true),
  (2, 0, false);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
-- As a condition null is false, so 1 / n is never computed; as a value it would be.
create policy p on public.docs for select using ((null::boolean and 1 / n > 0) or is_public);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1
