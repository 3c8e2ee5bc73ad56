-- A number that was to be a second factor and was never verified is tried anew.
delete from auth.mfa_factors where user_id = $1 and factor_type = 'phone' and phone = $2 and status = 'unverified'
