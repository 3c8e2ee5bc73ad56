-- Who a role ($1: oid) is.
select rolname, rolsuper or rolbypassrls from pg_roles where oid = $1
