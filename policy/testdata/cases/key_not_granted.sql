-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, title text);
insert into public.docs values (1, 'a');
revoke all on public.docs from anon, authenticated;
grant select (title) on public.docs to authenticated;
grant select (id) on public.docs to anon;
alter table public.docs enable row level security;
-- What a policy reads of its own table needs no grant.
create policy p on public.docs for select using (title = 'a');

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees:
-- as anon: {"role":"anon"}
-- sees: 1
