-- refreshed_at has no zone; it holds UTC.
update auth.sessions
set refreshed_at = $2::timestamptz at time zone 'utc', updated_at = $2, user_agent = $3, ip = $4, aal = $5::auth.aal_level,
    refresh_token_hmac_key = nullif($6, ''), refresh_token_counter = $7
where id = $1
