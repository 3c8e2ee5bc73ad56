delete from auth.mfa_factors where user_id = $1 and factor_type = $2::text::auth.factor_type and status = 'unverified'
