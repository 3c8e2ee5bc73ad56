update auth.users set is_anonymous = false, updated_at = $2 where id = $1
