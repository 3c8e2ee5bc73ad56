delete from auth.flow_state
where id in (select id from auth.flow_state where created_at < $1 limit $2 for update skip locked)
