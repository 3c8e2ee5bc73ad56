-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, title text);
insert into public.docs values
  (1, 'a');
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
grant select on public.docs to pt_base, pt_member, pt_noinherit, pt_bypass;
create policy p on public.docs for select to pt_base using (true);

-- as base: {"role":"pt_base"}
-- sees: 1
-- as member: {"role":"pt_member"}
-- sees: 1
-- as noinherit: {"role":"pt_noinherit"}
-- sees:
-- as bypass: {"role":"pt_bypass"}
-- sees: 1
-- as unknown: {"role":"no_such_role"}
-- sees:
