-- Helpers of the following files, and the roles that they name. A database that
-- came from Supabase has most of what follows: each helper creates what is
-- missing and leaves alone what is there, whoever made it. Where the login has no
-- right to create, which is so in the schemas of a hosted project, it warns.

revoke all on schema sluice from public;

-- Gives an object to the role that Supabase's dumps name as its owner. A login
-- without the right to do so keeps the object.
create function sluice.give(object text, owner text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('alter %s owner to %I', object, owner);
exception when insufficient_privilege then
  raise notice '% stays with %', object, current_user;
end $$;

create function sluice.make_schema(name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if to_regnamespace(quote_ident(name)) is null then
    execute format('create schema %I', name);
  end if;
end $$;

create function sluice.make_type(name text, owner text, ddl text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if to_regtype(name) is null then
    execute format('create type %s as %s', name, ddl);
    perform sluice.give('type ' || name, owner);
  end if;
exception when insufficient_privilege then
  raise warning 'type % is missing and % may not create it', name, current_user;
end $$;

-- Tables get row level security without a policy: closed until someone opens them.
create function sluice.make_table(name text, owner text, ddl text) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if to_regclass(name) is not null then
    return false;
  end if;
  execute ddl;
  execute format('alter table %s enable row level security', name);
  perform sluice.give('table ' || name, owner);
  return true;
exception when insufficient_privilege then
  raise warning 'table % is missing and % may not create it', name, current_user;
  return false;
end $$;

-- Columns that a table from an older Supabase does not have yet.
create function sluice.make_column(tab text, col text, ddl text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from pg_attribute where attrelid = tab::regclass and attname = col and not attisdropped) then
    execute format('alter table %s add column %I %s', tab, col, ddl);
  end if;
exception when insufficient_privilege then
  raise warning '%.% is missing and % may not add it', tab, col, current_user;
end $$;

create function sluice.make_function(signature text, owner text, ddl text) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if to_regprocedure(signature) is not null then
    return false;
  end if;
  execute ddl;
  perform sluice.give('function ' || signature, owner);
  return true;
exception when insufficient_privilege then
  raise warning 'function % is missing and % may not create it', signature, current_user;
  return false;
end $$;

-- GRANT of what the login may grant. GRANT raises only when the login holds
-- nothing at all on the object.
create function sluice.try_grant(what text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute what;
exception when insufficient_privilege then
  raise notice 'skipped: %', what;
end $$;

do $$
declare
  r record;
begin
  for r in
    select * from (values
      ('anon',                    'nologin inherit'),
      ('authenticated',           'nologin inherit'),
      ('service_role',            'nologin inherit bypassrls'),
      ('supabase_auth_admin',     'nologin noinherit'),
      ('supabase_storage_admin',  'nologin noinherit'),
      ('supabase_realtime_admin', 'nologin noinherit')
    ) as roles (name, attributes)
  loop
    if exists (select from pg_catalog.pg_roles where rolname = r.name) then
      continue;
    end if;
    begin
      execute format('create role %I %s', r.name, r.attributes);
      execute format('grant %I to %I', r.name, current_user);
    exception when insufficient_privilege then
      raise exception 'role % is missing and % may not create it', r.name, current_user
        using errcode = 'insufficient_privilege',
              hint = format('Run as a superuser: create role %1$I %2$s; grant %1$I to %3$I;', r.name, r.attributes, current_user);
    end;
  end loop;
end $$;

do $$
begin
  perform sluice.make_schema('extensions');
  perform sluice.make_schema('auth');
  perform sluice.make_schema('storage');
  perform sluice.make_schema('realtime');
  perform sluice.try_grant('grant usage on schema auth, storage, realtime, extensions to anon, authenticated, service_role');
  perform sluice.try_grant('grant usage on schema auth to supabase_auth_admin');
  perform sluice.try_grant('grant usage on schema storage to supabase_storage_admin');
  perform sluice.try_grant('grant usage on schema realtime to supabase_realtime_admin with grant option');
  -- A cluster without a role postgres has its own name for the one who migrates.
  if exists (select from pg_catalog.pg_roles where rolname = 'postgres') then
    perform sluice.try_grant('grant usage on schema auth, storage, realtime to postgres with grant option');
  end if;
end $$;
