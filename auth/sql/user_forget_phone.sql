update auth.users
set phone = null, phone_confirmed_at = null, phone_change = '', phone_change_token = '', updated_at = $2
where id = $1
