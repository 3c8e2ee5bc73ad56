update auth.users set role = $2, updated_at = $3 where id = $1
