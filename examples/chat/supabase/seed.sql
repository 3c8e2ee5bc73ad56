-- Two rooms and two users, for local development only: alice@example.com and
-- bob@example.com, both with the password sluice-chat.

insert into public.rooms (name, topic, is_open) values
  ('Lobby', 'Everyone who signs in is here', true),
  ('Kitchen', 'What is for lunch?', true);

insert into auth.users (
  instance_id, id, aud, role, email, encrypted_password, email_confirmed_at,
  raw_app_meta_data, raw_user_meta_data, created_at, updated_at,
  confirmation_token, recovery_token, email_change, email_change_token_new,
  email_change_token_current, phone_change, phone_change_token, reauthentication_token
)
select
  '00000000-0000-0000-0000-000000000000', u.id, 'authenticated', 'authenticated', u.email,
  extensions.crypt('sluice-chat', extensions.gen_salt('bf')), now(),
  '{"provider": "email", "providers": ["email"]}',
  jsonb_build_object('sub', u.id, 'email', u.email, 'name', u.name, 'email_verified', true, 'phone_verified', false),
  now(), now(), '', '', '', '', '', '', '', ''
from (values
  ('a11ce000-0000-4000-8000-000000000001'::uuid, 'alice@example.com', 'Alice'),
  ('b0b00000-0000-4000-8000-000000000002'::uuid, 'bob@example.com', 'Bob')
) as u (id, email, name);

insert into auth.identities (
  id, user_id, provider_id, provider, identity_data, last_sign_in_at, created_at, updated_at
)
select
  gen_random_uuid(), u.id, u.id::text, 'email',
  jsonb_build_object('sub', u.id, 'email', u.email, 'email_verified', true, 'phone_verified', false),
  now(), now(), now()
from auth.users u
where u.email in ('alice@example.com', 'bob@example.com');

insert into public.messages (room_id, user_id, body, created_at)
select r.id, p.id, m.body, now() - m.ago
from (values
  ('Alice', 'Hi Bob. Does this arrive without a reload?', interval '9 minutes'),
  ('Bob', 'It does. I did not press anything.', interval '8 minutes'),
  ('Alice', 'Then open a second window and say so again.', interval '7 minutes')
) as m (author, body, ago)
join public.profiles p on p.name = m.author
cross join public.rooms r
where r.name = 'Lobby';
