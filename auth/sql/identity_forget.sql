-- A soft-deleted user's identity no longer names anybody.
update auth.identities set provider_id = $2, identity_data = '{}', updated_at = $3 where id = $1
