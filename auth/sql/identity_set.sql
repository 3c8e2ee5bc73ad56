-- Creates or updates a user's own identity of provider email or phone.
insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
values ($1, $2, $3, $4, $5, $5, $5)
on conflict (provider_id, provider)
do update set identity_data = auth.identities.identity_data || excluded.identity_data, updated_at = excluded.updated_at
where auth.identities.user_id = excluded.user_id
