insert into auth.flow_state (id, user_id, auth_code, code_challenge_method, code_challenge, provider_type,
                             authentication_method, created_at, updated_at)
values (gen_random_uuid(), $1, $2, $3::text::auth.code_challenge_method, $4, $5, $5, $6, $6)
