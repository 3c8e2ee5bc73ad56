-- Schema auth in its final form. Columns stand in the order of Supabase Auth's
-- own tables, so that a dump of one restores into the other.

do $migration$
declare
  owner constant text := 'supabase_auth_admin';
begin

perform sluice.make_type('auth.aal_level', owner, $$enum ('aal1', 'aal2', 'aal3')$$);
perform sluice.make_type('auth.factor_type', owner, $$enum ('totp', 'webauthn', 'phone')$$);
perform sluice.make_type('auth.factor_status', owner, $$enum ('unverified', 'verified')$$);
perform sluice.make_type('auth.code_challenge_method', owner, $$enum ('s256', 'plain')$$);
perform sluice.make_type('auth.one_time_token_type', owner, $$enum ('confirmation_token', 'reauthentication_token', 'recovery_token',
  'email_change_token_new', 'email_change_token_current', 'phone_change_token')$$);
perform sluice.make_type('auth.oauth_registration_type', owner, $$enum ('dynamic', 'manual')$$);
perform sluice.make_type('auth.oauth_client_type', owner, $$enum ('public', 'confidential')$$);
perform sluice.make_type('auth.oauth_authorization_status', owner, $$enum ('pending', 'approved', 'denied', 'expired')$$);
perform sluice.make_type('auth.oauth_response_type', owner, $$enum ('code')$$);

perform sluice.make_table('auth.users', owner, $$
create table auth.users (
  instance_id uuid,
  id uuid not null primary key,
  aud varchar(255),
  role varchar(255),
  email varchar(255),
  encrypted_password varchar(255),
  email_confirmed_at timestamptz,
  invited_at timestamptz,
  confirmation_token varchar(255),
  confirmation_sent_at timestamptz,
  recovery_token varchar(255),
  recovery_sent_at timestamptz,
  email_change_token_new varchar(255),
  email_change varchar(255),
  email_change_sent_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  is_super_admin boolean,
  created_at timestamptz,
  updated_at timestamptz,
  phone text default null constraint users_phone_key unique,
  phone_confirmed_at timestamptz,
  phone_change text default '',
  phone_change_token varchar(255) default '',
  phone_change_sent_at timestamptz,
  confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
  email_change_token_current varchar(255) default '',
  email_change_confirm_status smallint default 0
    constraint users_email_change_confirm_status_check check (email_change_confirm_status >= 0 and email_change_confirm_status <= 2),
  banned_until timestamptz,
  reauthentication_token varchar(255) default '',
  reauthentication_sent_at timestamptz,
  is_sso_user boolean not null default false,
  deleted_at timestamptz,
  is_anonymous boolean not null default false
);
create index users_instance_id_idx on auth.users (instance_id);
create index users_instance_id_email_idx on auth.users (instance_id, lower((email)::text));
create index users_is_anonymous_idx on auth.users (is_anonymous);
create unique index users_email_partial_key on auth.users (email) where (is_sso_user = false);
create unique index confirmation_token_idx on auth.users (confirmation_token) where confirmation_token !~ '^[0-9 ]*$';
create unique index recovery_token_idx on auth.users (recovery_token) where recovery_token !~ '^[0-9 ]*$';
create unique index email_change_token_current_idx on auth.users (email_change_token_current) where email_change_token_current !~ '^[0-9 ]*$';
create unique index email_change_token_new_idx on auth.users (email_change_token_new) where email_change_token_new !~ '^[0-9 ]*$';
create unique index reauthentication_token_idx on auth.users (reauthentication_token) where reauthentication_token !~ '^[0-9 ]*$';
comment on table auth.users is 'Auth: Stores user login data within a secure schema.';
comment on column auth.users.is_sso_user is 'Auth: Set this column to true when the account comes from SSO. These accounts can have duplicate emails.';
$$);

perform sluice.make_table('auth.identities', owner, $$
create table auth.identities (
  provider_id text not null,
  user_id uuid not null constraint identities_user_id_fkey references auth.users (id) on delete cascade,
  identity_data jsonb not null,
  provider text not null,
  last_sign_in_at timestamptz,
  created_at timestamptz,
  updated_at timestamptz,
  email text generated always as (lower(identity_data ->> 'email')) stored,
  id uuid not null default gen_random_uuid() primary key,
  constraint identities_provider_id_provider_unique unique (provider_id, provider)
);
create index identities_user_id_idx on auth.identities (user_id);
create index identities_email_idx on auth.identities (email text_pattern_ops);
$$);

perform sluice.make_table('auth.instances', owner, $$
create table auth.instances (
  id uuid not null primary key,
  uuid uuid,
  raw_base_config text,
  created_at timestamptz,
  updated_at timestamptz
);
$$);

perform sluice.make_table('auth.audit_log_entries', owner, $$
create table auth.audit_log_entries (
  instance_id uuid,
  id uuid not null primary key,
  payload json,
  created_at timestamptz,
  ip_address varchar(64) not null default ''
);
create index audit_logs_instance_id_idx on auth.audit_log_entries (instance_id);
$$);

perform sluice.make_table('auth.oauth_clients', owner, $$
create table auth.oauth_clients (
  id uuid not null primary key,
  client_secret_hash text,
  registration_type auth.oauth_registration_type not null,
  redirect_uris text not null,
  grant_types text not null,
  client_name text constraint oauth_clients_client_name_length check (char_length(client_name) <= 1024),
  client_uri text constraint oauth_clients_client_uri_length check (char_length(client_uri) <= 2048),
  logo_uri text constraint oauth_clients_logo_uri_length check (char_length(logo_uri) <= 2048),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  client_type auth.oauth_client_type not null default 'confidential',
  token_endpoint_auth_method text not null default 'client_secret_basic'
    constraint oauth_clients_token_endpoint_auth_method_check
    check (token_endpoint_auth_method in ('client_secret_basic', 'client_secret_post', 'none'))
);
create index oauth_clients_deleted_at_idx on auth.oauth_clients (deleted_at);
$$);

perform sluice.make_table('auth.sessions', owner, $$
create table auth.sessions (
  id uuid not null primary key,
  user_id uuid not null constraint sessions_user_id_fkey references auth.users (id) on delete cascade,
  created_at timestamptz,
  updated_at timestamptz,
  factor_id uuid,
  aal auth.aal_level,
  not_after timestamptz,
  refreshed_at timestamp,
  user_agent text,
  ip inet,
  tag text,
  oauth_client_id uuid constraint sessions_oauth_client_id_fkey references auth.oauth_clients (id) on delete cascade,
  refresh_token_hmac_key text,
  refresh_token_counter bigint,
  scopes text constraint sessions_scopes_length check (char_length(scopes) <= 4096)
);
create index sessions_user_id_idx on auth.sessions (user_id);
create index user_id_created_at_idx on auth.sessions (user_id, created_at);
create index sessions_not_after_idx on auth.sessions (not_after desc);
create index sessions_oauth_client_id_idx on auth.sessions (oauth_client_id);
$$);

perform sluice.make_table('auth.refresh_tokens', owner, $$
create table auth.refresh_tokens (
  instance_id uuid,
  id bigserial not null primary key,
  token varchar(255) constraint refresh_tokens_token_unique unique,
  user_id varchar(255),
  revoked boolean,
  created_at timestamptz,
  updated_at timestamptz,
  parent varchar(255),
  session_id uuid constraint refresh_tokens_session_id_fkey references auth.sessions (id) on delete cascade
);
create index refresh_tokens_instance_id_idx on auth.refresh_tokens (instance_id);
create index refresh_tokens_instance_id_user_id_idx on auth.refresh_tokens (instance_id, user_id);
create index refresh_tokens_parent_idx on auth.refresh_tokens (parent);
create index refresh_tokens_session_id_revoked_idx on auth.refresh_tokens (session_id, revoked);
create index refresh_tokens_updated_at_idx on auth.refresh_tokens (updated_at desc);
$$);

perform sluice.make_table('auth.mfa_factors', owner, $$
create table auth.mfa_factors (
  id uuid not null primary key,
  user_id uuid not null constraint mfa_factors_user_id_fkey references auth.users (id) on delete cascade,
  friendly_name text,
  factor_type auth.factor_type not null,
  status auth.factor_status not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  secret text,
  phone text,
  last_challenged_at timestamptz constraint mfa_factors_last_challenged_at_key unique,
  web_authn_credential jsonb,
  web_authn_aaguid uuid,
  last_webauthn_challenge_data jsonb
);
create unique index mfa_factors_user_friendly_name_unique on auth.mfa_factors (friendly_name, user_id) where trim(friendly_name) <> '';
create unique index unique_phone_factor_per_user on auth.mfa_factors (user_id, phone);
create index mfa_factors_user_id_idx on auth.mfa_factors (user_id);
create index factor_id_created_at_idx on auth.mfa_factors (user_id, created_at);
$$);

perform sluice.make_table('auth.mfa_challenges', owner, $$
create table auth.mfa_challenges (
  id uuid not null primary key,
  factor_id uuid not null constraint mfa_challenges_auth_factor_id_fkey references auth.mfa_factors (id) on delete cascade,
  created_at timestamptz not null,
  verified_at timestamptz,
  ip_address inet not null,
  otp_code text,
  web_authn_session_data jsonb
);
create index mfa_challenge_created_at_idx on auth.mfa_challenges (created_at desc);
$$);

perform sluice.make_table('auth.mfa_amr_claims', owner, $$
create table auth.mfa_amr_claims (
  session_id uuid not null constraint mfa_amr_claims_session_id_fkey references auth.sessions (id) on delete cascade,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  authentication_method text not null,
  id uuid not null constraint amr_id_pk primary key,
  constraint mfa_amr_claims_session_id_authentication_method_pkey unique (session_id, authentication_method)
);
$$);

perform sluice.make_table('auth.one_time_tokens', owner, $$
create table auth.one_time_tokens (
  id uuid not null primary key,
  user_id uuid not null constraint one_time_tokens_user_id_fkey references auth.users (id) on delete cascade,
  token_type auth.one_time_token_type not null,
  token_hash text not null constraint one_time_tokens_token_hash_check check (char_length(token_hash) > 0),
  relates_to text not null,
  created_at timestamp not null default now(),
  updated_at timestamp not null default now()
);
create index one_time_tokens_token_hash_hash_idx on auth.one_time_tokens using hash (token_hash);
create index one_time_tokens_relates_to_hash_idx on auth.one_time_tokens using hash (relates_to);
create unique index one_time_tokens_user_id_token_type_key on auth.one_time_tokens (user_id, token_type);
$$);

perform sluice.make_table('auth.flow_state', owner, $$
create table auth.flow_state (
  id uuid not null primary key,
  user_id uuid,
  auth_code text,
  code_challenge_method auth.code_challenge_method,
  code_challenge text,
  provider_type text not null,
  provider_access_token text,
  provider_refresh_token text,
  created_at timestamptz,
  updated_at timestamptz,
  authentication_method text not null,
  auth_code_issued_at timestamptz,
  invite_token text,
  referrer text,
  oauth_client_state_id uuid,
  linking_target_id uuid,
  email_optional boolean not null default false
);
create index idx_auth_code on auth.flow_state (auth_code);
create index idx_user_id_auth_method on auth.flow_state (user_id, authentication_method);
create index flow_state_created_at_idx on auth.flow_state (created_at desc);
$$);

-- Supabase Auth records its own migrations here. Sluice neither reads nor fills
-- it: an imported dump brings its rows, and they stay.
perform sluice.make_table('auth.schema_migrations', owner, $$
create table auth.schema_migrations (
  version varchar(255) not null primary key
);
$$);

-- A database from an older Supabase.
perform sluice.make_column('auth.users', 'is_sso_user', 'boolean not null default false');
perform sluice.make_column('auth.users', 'deleted_at', 'timestamptz');
perform sluice.make_column('auth.users', 'is_anonymous', 'boolean not null default false');
perform sluice.make_column('auth.refresh_tokens', 'session_id', 'uuid references auth.sessions (id) on delete cascade');
perform sluice.make_column('auth.sessions', 'not_after', 'timestamptz');
perform sluice.make_column('auth.sessions', 'refreshed_at', 'timestamp');
perform sluice.make_column('auth.sessions', 'user_agent', 'text');
perform sluice.make_column('auth.sessions', 'ip', 'inet');
perform sluice.make_column('auth.sessions', 'tag', 'text');
perform sluice.make_column('auth.sessions', 'oauth_client_id', 'uuid references auth.oauth_clients (id) on delete cascade');
perform sluice.make_column('auth.sessions', 'refresh_token_hmac_key', 'text');
perform sluice.make_column('auth.sessions', 'refresh_token_counter', 'bigint');
perform sluice.make_column('auth.sessions', 'scopes', 'text check (char_length(scopes) <= 4096)');
perform sluice.make_column('auth.flow_state', 'auth_code_issued_at', 'timestamptz');
perform sluice.make_column('auth.flow_state', 'invite_token', 'text');
perform sluice.make_column('auth.flow_state', 'referrer', 'text');
perform sluice.make_column('auth.flow_state', 'oauth_client_state_id', 'uuid');
perform sluice.make_column('auth.flow_state', 'linking_target_id', 'uuid');
perform sluice.make_column('auth.flow_state', 'email_optional', 'boolean not null default false');
perform sluice.make_column('auth.mfa_factors', 'phone', 'text');
perform sluice.make_column('auth.mfa_factors', 'last_challenged_at', 'timestamptz unique');
perform sluice.make_column('auth.mfa_factors', 'web_authn_credential', 'jsonb');
perform sluice.make_column('auth.mfa_factors', 'web_authn_aaguid', 'uuid');
perform sluice.make_column('auth.mfa_factors', 'last_webauthn_challenge_data', 'jsonb');
perform sluice.make_column('auth.mfa_challenges', 'otp_code', 'text');
perform sluice.make_column('auth.mfa_challenges', 'web_authn_session_data', 'jsonb');

end $migration$;
