delete from auth.one_time_tokens
where id in (
  select id from auth.one_time_tokens where updated_at < $1::timestamptz at time zone 'utc' limit $2 for update skip locked
)
