-- The user's other sessions without a second factor, locked in the order of sign-outs.
delete from auth.sessions
where id in (
  select id from auth.sessions
  where user_id = $1 and id <> $2 and coalesce(aal, 'aal1') = 'aal1'
  order by id
  for update
)
