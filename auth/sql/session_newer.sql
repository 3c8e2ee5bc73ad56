-- Is there a session of the same user and tag, still valid, that was signed in or
-- refreshed later?
select exists (
  select from auth.sessions
  where user_id = $1 and id <> $2 and coalesce(tag, '') = $3 and (not_after is null or not_after > $4)
    and ($5::timestamptz is null or created_at > $5)
    and ($6::timestamptz is null or coalesce(refreshed_at at time zone 'utc', created_at) > $6)
    and coalesce(refreshed_at at time zone 'utc', created_at) > $7
)
