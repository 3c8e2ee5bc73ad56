-- May the user write? Without RETURNING: a row that may be written need not be
-- visible.
insert into realtime.messages (topic, extension) values ($1::text, $2::text)
