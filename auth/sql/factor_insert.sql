insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, secret, phone, created_at, updated_at)
values ($1, $2, $3, $4::text::auth.factor_type, 'unverified', nullif($5, ''), nullif($6, ''), $7, $7)
