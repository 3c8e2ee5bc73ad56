select authentication_method, updated_at
from auth.mfa_amr_claims
where session_id = $1
order by updated_at desc, authentication_method
