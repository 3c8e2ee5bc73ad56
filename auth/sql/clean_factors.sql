delete from auth.mfa_factors
where id in (
  select id from auth.mfa_factors where status = 'unverified' and created_at < $1 limit $2 for update skip locked
)
