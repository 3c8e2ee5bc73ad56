-- The state is used from here on, whatever comes of it. There is no code to be
-- exchanged until the flow has a user.
update auth.flow_state set auth_code_issued_at = $2, updated_at = $2 where id = $1
