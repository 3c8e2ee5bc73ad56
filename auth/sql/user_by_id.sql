-- One user with all that Auth reads. A NULL that a seed left behind reads as empty.
select id, coalesce(aud, ''), coalesce(role, ''), coalesce(email, ''), coalesce(phone, ''),
       coalesce(encrypted_password, ''),
       email_confirmed_at, phone_confirmed_at, confirmed_at, invited_at,
       confirmation_sent_at, recovery_sent_at, email_change_sent_at, phone_change_sent_at,
       reauthentication_sent_at, last_sign_in_at, banned_until, deleted_at,
       coalesce(created_at, 'epoch'::timestamptz) as created_at,
       coalesce(updated_at, 'epoch'::timestamptz) as updated_at,
       coalesce(email_change, ''), coalesce(phone_change, ''),
       coalesce(email_change_confirm_status, 0)::int,
       coalesce(raw_app_meta_data, '{}'), coalesce(raw_user_meta_data, '{}'),
       is_anonymous, is_sso_user
from auth.users
where id = $1
