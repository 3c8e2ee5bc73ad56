-- Who waits to change to this address?
select id
from auth.users
where id in (select user_id from auth.one_time_tokens where relates_to = $1 and token_type = 'email_change_token_new')
  and email_change = $1 and not is_sso_user and aud = $2
order by email_change_sent_at desc
limit 1
