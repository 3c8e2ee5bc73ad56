update auth.mfa_challenges set verified_at = $2 where id = $1
