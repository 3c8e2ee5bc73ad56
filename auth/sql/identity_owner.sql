select user_id from auth.identities where provider = $1 and provider_id = $2
