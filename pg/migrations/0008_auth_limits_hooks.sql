-- How often Auth may do something, for all nodes together: mails of the whole
-- server, mails to one address, wrong codes for one token. A row is a bucket that
-- empties with time; full_at is when it will be as if it had never been used.
-- Names hold hashes of addresses and codes, never the values.

create table if not exists sluice.auth_limits (
  name text not null primary key,
  full_at timestamptz not null
);

create index if not exists auth_limits_full_at on sluice.auth_limits (full_at);

alter table sluice.auth_limits enable row level security;

do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'supabase_auth_admin') then
    grant usage on schema sluice to supabase_auth_admin;
    grant select, insert, update, delete on sluice.auth_limits to supabase_auth_admin;
    create policy auth on sluice.auth_limits to supabase_auth_admin using (true) with check (true);
  end if;
end $$;

-- Calls a function of the project at one of Auth's points (pg-functions:// hooks),
-- as the role of the caller. Names are identifiers, never SQL.
create function sluice.call_hook(in_schema text, name text, input jsonb) returns jsonb
language plpgsql as $$
declare
  output jsonb;
begin
  execute pg_catalog.format('select %I.%I($1)', in_schema, name) into output using input;
  return output;
end $$;
revoke all on function sluice.call_hook(text, text, jsonb) from public;

do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'supabase_auth_admin') then
    grant execute on function sluice.call_hook(text, text, jsonb) to supabase_auth_admin;
  end if;
end $$;
