-- What policies call, and who may do what in schema auth.

do $migration$
declare
  owner constant text := 'supabase_auth_admin';
begin

perform sluice.make_function('auth.uid()', owner, $ddl$
create function auth.uid() returns uuid language sql stable as $$
  select
  coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid
$$ $ddl$);

perform sluice.make_function('auth.role()', owner, $ddl$
create function auth.role() returns text language sql stable as $$
  select
  coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
  )::text
$$ $ddl$);

perform sluice.make_function('auth.email()', owner, $ddl$
create function auth.email() returns text language sql stable as $$
  select
  coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email')
  )::text
$$ $ddl$);

perform sluice.make_function('auth.jwt()', owner, $ddl$
create function auth.jwt() returns jsonb language sql stable as $$
  select
  coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$ $ddl$);

-- The role that runs migrations creates foreign keys to and triggers on
-- auth.users, and seeds insert users by hand.
if exists (select from pg_catalog.pg_roles where rolname = 'postgres') then
  perform sluice.try_grant('grant all on all tables in schema auth to postgres');
  perform sluice.try_grant('grant all on all sequences in schema auth to postgres');
  perform sluice.try_grant('grant select on all tables in schema auth to postgres with grant option');
  perform sluice.try_grant('revoke insert, update, delete, truncate, trigger, references on auth.schema_migrations from postgres');
end if;
if exists (select from pg_catalog.pg_roles where rolname = 'dashboard_user') then
  perform sluice.try_grant('grant usage on schema auth to dashboard_user');
  perform sluice.try_grant('grant all on all tables in schema auth to dashboard_user');
  perform sluice.try_grant('grant all on all sequences in schema auth to dashboard_user');
end if;

end $migration$;
