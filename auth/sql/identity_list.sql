select id, provider_id, user_id, identity_data, provider, last_sign_in_at,
       coalesce(created_at, 'epoch'::timestamptz) as created_at,
       coalesce(updated_at, 'epoch'::timestamptz) as updated_at,
       coalesce(email, '')
from auth.identities
where user_id = $1
order by created_at, provider, id
