-- tier: 3
-- table: public.docs
-- key: id
create table public.docs (id integer primary key, at timestamptz);
create function public.day(at timestamptz) returns date language sql stable set timezone = 'Pacific/Kiritimati' begin atomic select at::date; end;
insert into public.docs values (1, '2024-01-01 00:00+00'), (2, '2024-01-01 12:00+00');
alter table public.docs enable row level security;
grant select on public.docs to anon, authenticated, service_role;
create policy p on public.docs for select using (public.day(at) = '2024-01-01'::date);

-- as anon: {"role":"anon"}
-- sees: 1
