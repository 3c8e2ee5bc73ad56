-- Every pending link and code of a user is void.
update auth.users
set confirmation_token = '', recovery_token = '', email_change_token_new = '', email_change_token_current = '',
    phone_change_token = '', reauthentication_token = '', updated_at = $2
where id = $1
