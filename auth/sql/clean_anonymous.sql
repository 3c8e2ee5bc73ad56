-- Nobody can sign in to them again: who has lost the session has lost the user. One
-- who still comes refreshes a session. A null time deletes nobody.
delete from auth.users
where id in (
  select u.id from auth.users u
  where u.is_anonymous and u.created_at < $1::timestamptz
    and not exists (
      select from auth.sessions s
      where s.user_id = u.id and coalesce(s.refreshed_at at time zone 'utc', s.created_at) >= $1
    )
  limit $2
  for update skip locked
)
