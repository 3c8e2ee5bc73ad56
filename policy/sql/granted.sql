-- Whether a role ($1: oid) may read columns ($3) of a table ($2: oid); without
-- columns, any of them.
select case when cardinality($3::int2[]) = 0 then has_any_column_privilege($1::oid, $2::oid, 'SELECT')
  else (select bool_and(has_column_privilege($1::oid, $2::oid, c, 'SELECT')) from unnest($3::int2[]) c) end
