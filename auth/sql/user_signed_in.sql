-- The password that was compared must still be the stored one: whoever changes
-- it ends the sessions that he sees, and this one must not slip in behind.
update auth.users
set last_sign_in_at = $2, updated_at = $2
where id = $1 and coalesce(encrypted_password, '') = $3
