delete from auth.webauthn_credentials where user_id = $1
