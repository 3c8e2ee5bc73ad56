-- Codes that were handed out and not exchanged, and links to a provider that began:
-- what acts for a user without a session or a new proof.
delete from auth.flow_state where user_id = $1 and auth_code_issued_at is not null or linking_target_id = $1
