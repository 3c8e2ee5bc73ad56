-- The row and its id stay, what tells who it was does not.
update auth.users
set email = nullif($2, ''), phone = nullif($3, ''), encrypted_password = '',
    confirmation_token = '', recovery_token = '', email_change_token_new = '', email_change_token_current = '',
    phone_change_token = '', reauthentication_token = '', email_change = $4, phone_change = $5,
    raw_app_meta_data = '{}', raw_user_meta_data = '{}', deleted_at = $6, updated_at = $6
where id = $1
