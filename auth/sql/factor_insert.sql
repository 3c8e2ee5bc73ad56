insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, secret, created_at, updated_at)
values ($1, $2, $3, 'totp', 'unverified', $4, $5, $5)
