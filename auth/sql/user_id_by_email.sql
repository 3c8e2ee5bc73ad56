-- The address is stored in lower case, but seeds and dumps may hold another. Both
-- forms have an index: users_email_partial_key and users_instance_id_email_idx.
select id
from auth.users
where (email = $1
       or instance_id = '00000000-0000-0000-0000-000000000000' and lower(email) = $1
       or instance_id is null and lower(email) = $1)
  and not is_sso_user and aud = $2
order by email = $1 desc, created_at
limit 1
