-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, kind text);
create table public.members (user_id uuid, role text, since integer);
insert into public.members values ('11111111-0000-4000-8000-000000000001', 'admin', 1), ('11111111-0000-4000-8000-000000000001', 'guest', 2);
grant select on public.members to anon, authenticated;
create function public.role_now() returns text language sql stable as $$ select m.role from public.members m where m.user_id = auth.uid() order by m.since desc $$;
insert into public.docs values (1, 'admin'), (2, 'guest');
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (kind = public.role_now());

-- as first: {"role":"authenticated","sub":"11111111-0000-4000-8000-000000000001"}
-- sees: 2
