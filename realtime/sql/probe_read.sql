-- Which of the probe's rows does the user see? Both statements of a probe run in
-- one transaction, so that the column's default, now(), is localtimestamp here
-- and one partition is looked at.
select id from realtime.messages where id = any ($1::uuid[]) and inserted_at = localtimestamp
