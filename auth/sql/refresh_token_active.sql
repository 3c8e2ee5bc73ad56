-- The newest token of a session that is still good.
select token, coalesce(parent, '')
from auth.refresh_tokens
where session_id = $1 and not coalesce(revoked, false)
order by id desc
limit 1
