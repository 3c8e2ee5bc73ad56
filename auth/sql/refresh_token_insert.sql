insert into auth.refresh_tokens (instance_id, token, user_id, parent, session_id, revoked, created_at, updated_at)
values ('00000000-0000-0000-0000-000000000000', $1, $2, nullif($3, ''), $4, false, $5, $5)
