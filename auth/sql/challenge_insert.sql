insert into auth.mfa_challenges (id, factor_id, ip_address, created_at) values ($1, $2, $3, $4)
