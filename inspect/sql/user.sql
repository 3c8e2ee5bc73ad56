-- A user by id or mail address, with the claims that a token of theirs would carry
-- where policies look. $1 is what a person typed.
select u.id::text,
       jsonb_build_object(
         'sub', u.id, 'role', coalesce(nullif(u.role, ''), 'authenticated'), 'aud', coalesce(nullif(u.aud, ''), 'authenticated'),
         'email', coalesce(u.email, ''), 'phone', coalesce(u.phone, ''), 'is_anonymous', u.is_anonymous, 'aal', 'aal1',
         'app_metadata', coalesce(u.raw_app_meta_data, '{}'), 'user_metadata', coalesce(u.raw_user_meta_data, '{}'))::text,
       coalesce(nullif(u.role, ''), 'authenticated')
from auth.users u
where u.deleted_at is null and (u.id::text = lower($1) or lower(u.email) = lower($1) and not u.is_sso_user)
order by u.id::text = lower($1) desc
limit 1
