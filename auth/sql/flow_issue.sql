-- The newest flow that a user began by one of these methods gets to hand out its
-- code; the link of an older one is dead.
update auth.flow_state
set auth_code_issued_at = $3, updated_at = $3
where id = (
  select id from auth.flow_state
  where user_id = $1 and authentication_method = any ($2) and auth_code_issued_at is null
  order by created_at desc
  limit 1
)
returning auth_code
