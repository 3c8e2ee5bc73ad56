-- A session, once nobody else changes it.
select id, user_id, coalesce(created_at, 'epoch'::timestamptz) as created_at, coalesce(aal::text, 'aal1') as aal,
       not_after, refreshed_at, coalesce(tag, ''), oauth_client_id is not null,
       coalesce(refresh_token_hmac_key, ''), coalesce(refresh_token_counter, 0)
from auth.sessions
where id = $1
for update
