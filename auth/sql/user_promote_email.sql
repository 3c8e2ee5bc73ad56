-- The address of another identity in place of the one that is gone. What nobody has
-- verified is not confirmed, and what was pending is void.
update auth.users
set email = nullif($2, ''),
    email_confirmed_at = case when $2 <> '' and $3 then coalesce(email_confirmed_at, $4) end,
    email_change = '', email_change_confirm_status = 0,
    confirmation_token = '', recovery_token = '', email_change_token_new = '', email_change_token_current = '',
    phone_change_token = '', reauthentication_token = '', updated_at = $4
where id = $1
