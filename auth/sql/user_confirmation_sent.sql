update auth.users set confirmation_token = $2, confirmation_sent_at = $3, updated_at = $3 where id = $1
