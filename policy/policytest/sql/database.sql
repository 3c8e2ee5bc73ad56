-- Once for each database. Event triggers are of no concern here and cost time.
drop event trigger pgrst_ddl_watch;
drop event trigger pgrst_drop_watch;
drop event trigger sluice_ddl_command_end;
drop event trigger sluice_sql_drop;
do $$ begin
  if exists (select from pg_available_extensions where name = 'citext') then
    create extension if not exists citext with schema extensions;
  end if;
end $$;
create schema app;
create schema "Odd Schema";
create schema hidden;
grant usage on schema app, "Odd Schema" to public;
grant usage on schema auth, extensions to pt_base, pt_member, pt_noinherit, pt_bypass, pt_owner, "PT Odd";
grant usage on schema hidden to pt_owner, service_role;
