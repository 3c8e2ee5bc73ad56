-- The token of one side of a change of address.
update auth.users
set email_change_sent_at = $4, updated_at = $4,
    email_change_token_new = case when $2 = 'email_change_token_new' then $3 else email_change_token_new end,
    email_change_token_current = case when $2 = 'email_change_token_current' then $3 else email_change_token_current end
where id = $1
