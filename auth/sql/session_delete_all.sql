-- Every session of a user but one; a nil id spares none. Rows are locked in one
-- order, so that two of these do not wait for each other.
delete from auth.sessions
where id in (select id from auth.sessions where user_id = $1 and id <> $2 order by id for update)
