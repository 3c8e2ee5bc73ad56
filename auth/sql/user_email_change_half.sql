-- One of the two addresses has confirmed; its token is used up.
update auth.users
set email_change_confirm_status = 1, updated_at = $3,
    email_change_token_new = case when $2 = 'email_change_token_new' then '' else email_change_token_new end,
    email_change_token_current = case when $2 = 'email_change_token_current' then '' else email_change_token_current end
where id = $1
