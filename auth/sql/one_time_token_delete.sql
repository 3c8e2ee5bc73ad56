delete from auth.one_time_tokens where user_id = $1 and token_type = $2::text::auth.one_time_token_type
