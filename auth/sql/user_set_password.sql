-- A new password voids every pending link and code.
update auth.users
set encrypted_password = $2, confirmation_token = '', recovery_token = '', email_change_token_new = '',
    email_change_token_current = '', phone_change_token = '', reauthentication_token = '', updated_at = $3
where id = $1
