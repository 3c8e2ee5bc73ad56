select coalesce(f.secret, ''), coalesce(f.phone, ''), coalesce(c.otp_code, ''), c.created_at, c.verified_at, c.ip_address
from auth.mfa_challenges c join auth.mfa_factors f on f.id = c.factor_id
where c.id = $1 and f.id = $2
for update
