select f.provider_type, coalesce(f.code_challenge_method::text, ''), coalesce(f.code_challenge, ''), coalesce(f.referrer, ''),
       coalesce(f.invite_token, ''), f.linking_target_id, f.email_optional, coalesce(o.code_verifier, ''),
       f.created_at, f.auth_code_issued_at
from auth.flow_state f left join auth.oauth_client_states o on o.id = f.oauth_client_state_id
where f.id = $1 and f.authentication_method = 'oauth'
for update of f
