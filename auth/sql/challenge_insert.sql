insert into auth.mfa_challenges (id, factor_id, ip_address, otp_code, created_at) values ($1, $2, $3, nullif($4, ''), $5)
