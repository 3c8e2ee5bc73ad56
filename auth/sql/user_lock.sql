-- Changes of one user follow one another.
select 1 from auth.users where id = $1 for update
