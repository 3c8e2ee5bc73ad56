select provider from auth.identities where user_id = $1 group by provider order by min(created_at), provider
