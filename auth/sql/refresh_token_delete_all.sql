delete from auth.refresh_tokens where session_id = $1
