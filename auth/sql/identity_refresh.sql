-- What the provider says now, in place of what it said before.
update auth.identities set identity_data = $3, last_sign_in_at = $4, updated_at = $4 where provider = $1 and provider_id = $2
