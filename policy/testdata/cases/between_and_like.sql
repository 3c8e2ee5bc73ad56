-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, n integer, label text);
insert into public.docs values
  (1, 1, 'abc'),
  (2, 5, 'abc'),
  (3, 1, 'ABC'),
  (4, null, 'abc'),
  (5, 3, E'a\\\\c');
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (n between 1 and 3 and label like 'a%');

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1 5
