-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, a boolean, b boolean);
insert into public.docs values
  (1, true, null),
  (2, false, null),
  (3, null, null),
  (4, true, true),
  (5, false, false);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (not (a and b) or (a and b) is null);

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1 2 3 5
