delete from auth.refresh_tokens
where id in (select id from auth.refresh_tokens where revoked and updated_at < $1 limit $2 for update skip locked)
