update auth.users
set phone = $2, phone_change = '', phone_change_token = '', updated_at = $3
where id = $1
