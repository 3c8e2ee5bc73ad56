-- Roles of a Supabase cluster, for a private cluster whose initdb superuser is
-- supabase_admin. Roles are shared by all databases: create what is missing,
-- then set what must hold.

-- Two databases of one cluster may be bootstrapped at once. Logins go on.
lock table pg_catalog.pg_authid in share row exclusive mode;

do $$
declare
  r record;
begin
  for r in
    select * from (values
      ('anon',                       'nologin inherit'),
      ('authenticated',              'nologin inherit'),
      ('service_role',               'nologin inherit bypassrls'),
      ('authenticator',              'login noinherit'),
      ('postgres',                   'login inherit createdb createrole replication bypassrls'),
      ('supabase_auth_admin',        'login noinherit createrole'),
      ('supabase_storage_admin',     'login noinherit createrole'),
      ('supabase_functions_admin',   'login noinherit createrole'),
      ('supabase_realtime_admin',    'nologin noinherit'),
      ('supabase_replication_admin', 'login inherit replication'),
      ('supabase_read_only_user',    'login inherit bypassrls'),
      ('supabase_etl_admin',         'login inherit replication'),
      ('dashboard_user',             'nologin inherit createdb createrole replication'),
      ('pgbouncer',                  'login inherit')
    ) as roles (name, attributes)
  loop
    if not exists (select from pg_roles where rolname = r.name) then
      execute format('create role %I nosuperuser %s', r.name, r.attributes);
    end if;
  end loop;
end $$;

alter role supabase_admin with createdb createrole replication bypassrls;

-- Members. On 16 and later the grants carry INHERIT as the member's own
-- attribute says, and SET, which is what 15 does by itself.
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to supabase_realtime_admin;
grant authenticator to supabase_storage_admin;
grant anon, authenticated, service_role to postgres with admin option;
do $$
begin
  -- Since 16 CREATEROLE alone does not let postgres alter a role's settings, as
  -- in: alter role authenticator set pgrst.db_schemas = ...
  if current_setting('server_version_num')::int >= 160000 then
    execute 'grant authenticator to postgres with admin true, inherit false, set false';
  end if;
end $$;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres;
grant pg_read_all_data to supabase_read_only_user, supabase_etl_admin;
grant pg_monitor to supabase_read_only_user;

-- CREATE POLICY, DROP TRIGGER and the like belong to a table's owner. Supabase's
-- hosted images let postgres do them on the listed tables of auth, storage and
-- realtime through the extension supautils, which is not part of PostgreSQL.
-- Here postgres is a member of the owners instead, as on Supabase's older
-- images. What hosted projects refuse since April 2025 is refused here too: the
-- schemas belong to supabase_admin and the owners of the tables have no CREATE
-- in them, so a migration cannot put objects of its own there.
grant supabase_auth_admin, supabase_storage_admin, supabase_realtime_admin to postgres;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
-- Supabase preloads safeupdate for authenticator. A missing library would break
-- every login of that role, so the setting is left out; REST itself refuses
-- UPDATE and DELETE without a filter.
alter role postgres set search_path = "$user", public, extensions;
alter role supabase_admin set search_path = "$user", public, auth, extensions;
alter role supabase_auth_admin set search_path = auth;
alter role supabase_auth_admin set idle_in_transaction_session_timeout = '60s';
alter role supabase_storage_admin set search_path = storage;
alter role supabase_functions_admin set search_path = supabase_functions;
alter role supabase_realtime_admin set search_path = public, extensions, realtime;
alter role supabase_read_only_user set default_transaction_read_only = on;
grant set on parameter log_min_messages to supabase_realtime_admin;
