select id from auth.users where phone = $1 and aud = $2
