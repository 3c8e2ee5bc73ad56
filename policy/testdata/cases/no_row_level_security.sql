-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key);
insert into public.docs values (1), (2);
revoke all on public.docs from anon;
grant select on public.docs to authenticated;

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1 2
-- as anon: {"role":"anon"}
-- sees:
