-- tier: 2
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, team_id integer, org text);
create table public.members (team_id integer, user_id uuid);
insert into public.members values (1, '11111111-0000-4000-8000-000000000001'), (2, '11111111-0000-4000-8000-000000000001');
grant select on public.members to anon, authenticated;
insert into public.docs values (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'a');
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (org = auth.jwt() ->> 'org' and exists (select 1 from public.members m where m.team_id = docs.team_id and m.user_id = auth.uid()));

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","org":"a"}
-- sees: 1
-- as second: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001","org":"b"}
-- sees: 2
-- as anon: {"role":"anon"}
-- sees:
