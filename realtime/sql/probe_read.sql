-- Which of the probe's rows does the user see? The time is a parameter, not
-- now(), so that a single partition is planned: that is half of the cost.
select id from realtime.messages where id = any ($1::uuid[]) and inserted_at = $2::timestamp
