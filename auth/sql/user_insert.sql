-- As the original inserts it: triggers on auth.users are written against these
-- values. Role, confirmation and the reserved metadata come by later updates.
insert into auth.users (
  instance_id, id, aud, role, email, phone, encrypted_password,
  raw_app_meta_data, raw_user_meta_data, is_anonymous, created_at, updated_at,
  confirmation_token, recovery_token, email_change_token_new, email_change
) values (
  '00000000-0000-0000-0000-000000000000', $1, $2, '', nullif($3, ''), nullif($4, ''), $5,
  $6, $7, $8, $9, $9,
  '', '', '', ''
)
