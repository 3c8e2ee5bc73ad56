-- Who has one of these addresses: as its own, or by a provider that verified it. Of
-- two answers the caller takes none. Users of single sign-on are apart: their
-- directory may write any address.
select u.id
from auth.users u
where u.email = any ($1) and not u.is_sso_user and u.aud = $2
union
select i.user_id
from auth.identities i join auth.users u on u.id = i.user_id
where i.email = any ($1) and i.identity_data ->> 'email_verified' = 'true' and i.provider not like 'sso:%'
  and not u.is_sso_user and u.aud = $2
limit 2
