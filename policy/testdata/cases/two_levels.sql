-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, team_id integer);
create table public.teams (id integer, org_id integer);
create table public.members (org_id integer, user_id uuid);
insert into public.teams values (1, 7), (2, 8);
insert into public.members values (7, '11111111-0000-4000-8000-000000000001'), (8, '22222222-0000-4000-8000-000000000002'), (7, '22222222-0000-4000-8000-000000000002');
grant select on public.teams, public.members to authenticated;
insert into public.docs values
  (1, 1),
  (2, 2),
  (3, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (exists (
  select from public.teams t where t.id = docs.team_id and exists (
    select from public.members m where m.org_id = t.org_id and m.user_id = auth.uid())));

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1
-- as second: {"role":"authenticated","sub":"22222222-0000-4000-8000-000000000002"}
-- sees: 1 2
