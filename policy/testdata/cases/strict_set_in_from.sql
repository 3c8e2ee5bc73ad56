-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, team_id integer);
create table public.members (team_id integer, user_id uuid);
insert into public.members values (1, '11111111-0000-4000-8000-000000000001'), (2, null);
grant select on public.members to anon, authenticated;
create function public.teams_of(u uuid) returns setof integer language sql stable strict as $$ select m.team_id from public.members m where m.user_id is not distinct from u $$;
insert into public.docs values (1, 1), (2, 2);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (exists (select from public.teams_of(auth.uid()) t where t = team_id));

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1
-- as anon: {"role":"anon"}
-- sees:
