update auth.users
set email_confirmed_at = $2, confirmation_token = '', raw_user_meta_data = $3, updated_at = $2
where id = $1
