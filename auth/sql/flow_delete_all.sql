-- Codes that were handed out and not exchanged, and links to a provider that began
-- after $2, as older ones are void: what acts for a user without a session or a new
-- proof. Rows are locked in one order, so that two of these do not wait for each other.
delete from auth.flow_state
where id in (
  select id from auth.flow_state
  where user_id = $1 and auth_code_issued_at is not null
     or linking_target_id = $1 and created_at > $2
  order by id
  for update
)
