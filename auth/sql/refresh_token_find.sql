-- Tokens of before sessions have none; they cannot be refreshed.
select coalesce(revoked, false), coalesce(updated_at, 'epoch'::timestamptz), session_id
from auth.refresh_tokens
where token = $1
