-- All identities of a user but one.
delete from auth.identities where user_id = $1 and (provider, provider_id) <> ($2, $3)
