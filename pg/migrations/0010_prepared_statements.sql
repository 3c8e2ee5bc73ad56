-- Whoever can list a session's prepared statements can drop one and prepare his
-- own under its name, which then answers for the next user of the connection. So
-- users may not list them. The owner of the project still can, in his own sessions,
-- and Auth's login, in whose sessions only Auth's own statements run; what triggers
-- and hooks do to them is looked for.
do $$
declare
  who name;
begin
  revoke execute on function pg_catalog.pg_prepared_statement() from public;
  revoke select on pg_catalog.pg_prepared_statements from public;
  for who in select rolname from pg_roles where rolname in ('postgres', 'supabase_auth_admin') loop
    execute format('grant execute on function pg_catalog.pg_prepared_statement() to %I', who);
    execute format('grant select on pg_catalog.pg_prepared_statements to %I', who);
  end loop;
exception when insufficient_privilege then
  raise notice 'prepared statements can be listed by everybody: % may not revoke it', current_user;
end $$;
