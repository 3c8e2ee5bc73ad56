update auth.users set banned_until = $2, updated_at = $3 where id = $1
