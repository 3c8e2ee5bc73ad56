-- Whose token is this? The caller locks the user and looks again.
select user_id from auth.one_time_tokens where token_hash = $1 limit 1
