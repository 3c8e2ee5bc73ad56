-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, email text);
insert into public.docs values
  (1, 'a@example.com'),
  (2, 'A@example.com'),
  (3, null),
  (4, '');
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (auth.jwt() ->> 'email' = email);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","email":"a@example.com"}
-- sees: 1
-- as escaped: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","email":"\u0041@example.com"}
-- sees: 2
-- as twice: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","email":"a@example.com","email":"A@example.com"}
-- sees: 2
-- as empty: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","email":""}
-- sees: 4
-- as null: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","email":null}
-- sees:
-- as anon: {"role":"anon"}
-- sees:
