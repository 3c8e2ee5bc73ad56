-- A sign-in with a provider begins; its id is the state. An implicit flow has no
-- challenge.
insert into auth.flow_state (id, auth_code, code_challenge_method, code_challenge, provider_type, authentication_method,
                             referrer, invite_token, linking_target_id, oauth_client_state_id, email_optional, created_at, updated_at)
values ($1, $2, nullif($3, '')::text::auth.code_challenge_method, nullif($4, ''), $5, 'oauth',
        $6, nullif($7, ''), $8, $9, $10, $11, $11)
