-- tier: 3
-- table: "Odd Schema"."Odd Table"
-- key: row_number_of_test
create table "Odd Schema"."Odd Table" (
  row_number_of_test integer primary key,
  n integer,
  label text);
alter table "Odd Schema"."Odd Table" enable row level security;
create table "Odd Schema".profiles (id uuid, email text, is_admin boolean, level integer, org_id uuid);
insert into "Odd Schema".profiles values ('00000001-0000-4000-8000-00000000000a', 'b@example.com', false, 3, '00000001-0000-4000-8000-00000000000a'), ('00000002-0000-4000-8000-00000000000a', 'a@example.com', false, 0, '00000003-0000-4000-8000-00000000000a'), ('00000003-0000-4000-8000-00000000000a', 'b@example.com', true, 1, '00000002-0000-4000-8000-00000000000a'), ('00000004-0000-4000-8000-00000000000a', 'a@example.com', false, 0, null), ('00000005-0000-4000-8000-00000000000a', 'b@example.com', false, 2, '00000001-0000-4000-8000-00000000000a'), ('00000006-0000-4000-8000-00000000000a', 'b@example.com', true, 1, '00000001-0000-4000-8000-00000000000a'), ('00000007-0000-4000-8000-00000000000a', 'b@example.com', true, 1, '00000001-0000-4000-8000-00000000000a');
create index on "Odd Schema".profiles (id);
create function "Odd Schema".over(a text) returns boolean language sql stable as $f$ select a::text > '0' $f$;
grant select on "Odd Schema"."Odd Table" to anon, authenticated, service_role, pt_base, pt_member, pt_noinherit, pt_bypass, pt_owner, pt_stranger, "PT Odd";
grant select on "Odd Schema".profiles to pt_owner, anon;
insert into "Odd Schema"."Odd Table" (row_number_of_test, n, label) values
  (2, 4, 'b');
create policy "Z" on "Odd Schema"."Odd Table" for select to public using ("Odd Schema".over(label));
create policy own on "Odd Schema"."Odd Table" for select to public using ((("Odd Table".n::smallint + 32766::smallint)::bigint > 0) and (exists (select from "Odd Schema".profiles p where p.id = auth.uid() and p.is_admin)));
-- as u0: {"role":"anon"}
-- sees:
