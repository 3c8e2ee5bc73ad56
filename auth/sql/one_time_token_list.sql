select token_type::text, token_hash from auth.one_time_tokens where user_id = $1
