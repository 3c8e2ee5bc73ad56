-- The database, its schemas public and extensions, and who may use them.

do $$
begin
  execute format('alter database %I owner to postgres', current_database());
end $$;

create schema if not exists extensions;
create schema if not exists graphql_public;

grant usage on schema public, extensions, graphql_public to postgres, anon, authenticated, service_role;
grant create on schema extensions to postgres;
grant all on schema public to postgres;

-- Users never write GRANTs: every object that postgres or supabase_admin makes
-- in public is open to the API roles, and row level security is the guard.
alter default privileges for role postgres in schema public grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on sequences to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public grant all on sequences to postgres, anon, authenticated, service_role;

-- What supabase_admin makes in extensions may be granted on by postgres.
alter default privileges for role supabase_admin in schema extensions grant all on tables to postgres with grant option;
alter default privileges for role supabase_admin in schema extensions grant all on functions to postgres with grant option;
alter default privileges for role supabase_admin in schema extensions grant all on sequences to postgres with grant option;
