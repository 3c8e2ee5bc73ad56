update auth.users set raw_app_meta_data = $2, updated_at = $3 where id = $1
