update auth.users set invited_at = $2, updated_at = $2 where id = $1
