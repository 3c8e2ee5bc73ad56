-- A change of address begins: no side has confirmed yet. The current address has
-- no token where one confirmation is enough.
update auth.users
set email_change = $2, email_change_token_new = $3, email_change_token_current = $4,
    email_change_confirm_status = 0, email_change_sent_at = $5, updated_at = $5
where id = $1
