-- Their refresh tokens go by cascade. Times that are null do not end sessions.
delete from auth.sessions
where id in (
  select id from auth.sessions
  where not_after < $1
     or created_at < $2::timestamptz
     or coalesce(refreshed_at at time zone 'utc', created_at) < $3::timestamptz
  limit $4
  for update skip locked
)
