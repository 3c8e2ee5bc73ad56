select token_type::text, token_hash, relates_to from auth.one_time_tokens where user_id = $1
