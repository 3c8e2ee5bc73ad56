-- The newest token of a session, revoked or not.
select token from auth.refresh_tokens where session_id = $1 order by id desc limit 1
