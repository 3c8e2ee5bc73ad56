delete from auth.oauth_client_states
where id in (select id from auth.oauth_client_states where created_at < $1 limit $2 for update skip locked)
