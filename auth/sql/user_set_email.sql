-- Applies a new address at once; a pending change is void.
update auth.users
set email = $2, email_change = '', email_change_token_new = '', email_change_token_current = '',
    email_change_confirm_status = 0, updated_at = $3
where id = $1
