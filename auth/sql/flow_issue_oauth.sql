update auth.flow_state
set user_id = $2, provider_access_token = $3, provider_refresh_token = nullif($4, ''), auth_code_issued_at = $5, updated_at = $5
where id = $1
returning auth_code
