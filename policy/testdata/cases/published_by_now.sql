-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, at timestamptz);
insert into public.docs values
  (1, now() - interval '1 day'),
  (2, now() + interval '1 day'),
  (3, 'infinity'),
  (4, '-infinity'),
  (5, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (at <= now());

-- as anon: {"role":"anon"}
-- sees: 1 4
