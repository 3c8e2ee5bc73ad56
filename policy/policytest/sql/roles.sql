-- Roles of the generated worlds and of the cases. Roles belong to a server, so
-- this runs once for each and again does nothing.
do $$
declare
  r record;
begin
  for r in select * from (values
    ('pt_base', 'inherit'), ('pt_member', 'inherit'), ('pt_noinherit', 'noinherit'), ('pt_bypass', 'bypassrls'),
    ('pt_owner', 'inherit'), ('pt_stranger', 'inherit'), ('PT Odd', 'inherit')) as roles (name, attributes)
  loop
    if not exists (select from pg_roles where rolname = r.name) then
      execute format('create role %I nologin %s', r.name, r.attributes);
      execute format('grant %I to authenticator', r.name);
      if r.name in ('pt_member', 'pt_noinherit') then
        execute format('grant pt_base to %I', r.name);
      end if;
    end if;
  end loop;
end $$;
