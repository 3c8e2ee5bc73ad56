update auth.identities
set identity_data = identity_data || '{"email_verified": true}', updated_at = $2
where user_id = $1 and provider = 'email'
