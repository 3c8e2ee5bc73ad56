-- A code that was handed out. Who deletes the flow has used it.
select id, user_id, code_challenge_method::text, code_challenge, authentication_method, auth_code_issued_at,
       coalesce(provider_access_token, ''), coalesce(provider_refresh_token, '')
from auth.flow_state
where auth_code = $1 and user_id is not null and auth_code_issued_at is not null
  and code_challenge is not null and code_challenge_method is not null
