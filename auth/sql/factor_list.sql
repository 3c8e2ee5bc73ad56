select id, created_at, updated_at, status::text, coalesce(friendly_name, ''), factor_type::text, coalesce(phone, ''),
       last_challenged_at
from auth.mfa_factors
where user_id = $1
order by created_at, id
