-- Who waits to change to this number?
select id
from auth.users
where id in (select user_id from auth.one_time_tokens where relates_to = $1 and token_type = 'phone_change_token')
  and phone_change = $1 and aud = $2
order by phone_change_sent_at desc
limit 1
