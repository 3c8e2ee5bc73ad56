-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, n bigint);
insert into public.docs values
  (1, 1),
  (2, 1000),
  (3, 9007199254740993),
  (4, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using ((auth.jwt() ->> 'n')::numeric = n);

-- as one: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","n":1.0}
-- sees: 1
-- as exponent: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","n":1e3}
-- sees: 2
-- as large: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","n":9007199254740993}
-- sees: 3
-- as near: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","n":9007199254740992}
-- sees:
-- as text: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","n":"1"}
-- sees: 1
-- as true: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","n":true}
-- sees:
