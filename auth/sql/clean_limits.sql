-- A bucket that is full again is as good as none.
delete from sluice.auth_limits
where name in (select name from sluice.auth_limits where full_at < $1 limit $2 for update skip locked)
