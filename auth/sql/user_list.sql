-- The filter is a pattern, escaped by the caller; an empty one matches everybody.
-- Identities and factors are not part of the list.
select id, coalesce(aud, ''), coalesce(role, ''), coalesce(email, ''), coalesce(phone, ''),
       '' as encrypted_password,
       email_confirmed_at, phone_confirmed_at, confirmed_at, invited_at,
       confirmation_sent_at, recovery_sent_at, email_change_sent_at, phone_change_sent_at,
       reauthentication_sent_at, last_sign_in_at, banned_until, deleted_at,
       coalesce(created_at, 'epoch'::timestamptz) as created_at,
       coalesce(updated_at, 'epoch'::timestamptz) as updated_at,
       coalesce(email_change, ''), coalesce(phone_change, ''),
       0 as email_change_confirm_status,
       coalesce(raw_app_meta_data, '{}'), coalesce(raw_user_meta_data, '{}'),
       is_anonymous, is_sso_user
from auth.users
where aud = $1
  and ($2 = '' or email like $2 or raw_user_meta_data ->> 'full_name' ilike $2)
order by case when $3 then created_at end asc, case when not $3 then created_at end desc, id
limit $4 offset $5
