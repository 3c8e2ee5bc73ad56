update auth.identities
set identity_data = identity_data || '{"phone_verified": true}', updated_at = $2
where user_id = $1 and provider = 'phone'
