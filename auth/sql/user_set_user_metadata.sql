update auth.users set raw_user_meta_data = $2, updated_at = $3 where id = $1
