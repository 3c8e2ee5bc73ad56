-- The address is about to be proved by somebody who need not be who signed up: what
-- that one chose is gone.
update auth.users
set encrypted_password = '', phone = case when phone_confirmed_at is null then null else phone end,
    email_change = '', phone_change = '', email_change_confirm_status = 0,
    confirmation_token = '', recovery_token = '', email_change_token_new = '', email_change_token_current = '',
    phone_change_token = '', reauthentication_token = '', raw_user_meta_data = $2, updated_at = $3
where id = $1
