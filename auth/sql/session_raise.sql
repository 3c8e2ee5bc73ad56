update auth.sessions
set aal = 'aal2', factor_id = $2, refresh_token_hmac_key = nullif($3, ''), refresh_token_counter = $4, updated_at = $5
where id = $1
