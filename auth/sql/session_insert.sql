insert into auth.sessions (id, user_id, created_at, updated_at, aal, user_agent, ip, refresh_token_hmac_key, refresh_token_counter)
values ($1, $2, $3, $3, 'aal1', $4, $5, nullif($6, ''), $7)
