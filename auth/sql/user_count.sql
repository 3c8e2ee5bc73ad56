select count(*)
from auth.users
where aud = $1
  and ($2 = '' or email like $2 or raw_user_meta_data ->> 'full_name' ilike $2)
