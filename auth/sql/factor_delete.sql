delete from auth.mfa_factors where id = $1
