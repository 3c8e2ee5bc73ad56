-- Proves the address; what else was pending is void.
update auth.users
set email_confirmed_at = $2, confirmation_token = '', recovery_token = '', email_change_token_new = '',
    email_change_token_current = '', phone_change_token = '', reauthentication_token = '',
    raw_user_meta_data = $3, updated_at = $2
where id = $1
