-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, team_id integer);
create table public.members (team_id integer, user_id uuid, role text);
insert into public.members values (1, '11111111-0000-4000-8000-000000000001', 'admin'), (1, '22222222-0000-4000-8000-000000000002', 'member'), (2, '22222222-0000-4000-8000-000000000002', 'member'), (null, '11111111-0000-4000-8000-000000000001', 'member');
revoke all on public.members from anon, authenticated;
grant select on public.members to authenticated;
insert into public.docs values
  (1, 1),
  (2, 2),
  (3, null);
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using ('admin' = (select m.role from public.members m where m.team_id = docs.team_id and m.user_id = auth.uid()));

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 1
-- as second: {"role":"authenticated","sub":"22222222-0000-4000-8000-000000000002"}
-- sees:
-- as anon: {"role":"anon"}
-- sees:
