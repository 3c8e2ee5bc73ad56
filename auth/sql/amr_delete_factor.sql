-- What a factor has proved for the sessions that it raised.
delete from auth.mfa_amr_claims
where session_id in (select id from auth.sessions where factor_id = $1)
  and authentication_method in ('totp', 'mfa/phone', 'mfa/webauthn')
