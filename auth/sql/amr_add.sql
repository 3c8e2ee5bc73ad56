insert into auth.mfa_amr_claims (id, session_id, authentication_method, created_at, updated_at)
values (gen_random_uuid(), $1, $2, $3, $3)
on conflict (session_id, authentication_method) do update set updated_at = excluded.updated_at
