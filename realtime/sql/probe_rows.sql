-- The rows that a read probe looks for, one for each extension.
insert into realtime.messages (id, topic, extension)
select p.id, $1::text, p.extension
  from unnest($2::uuid[], $3::text[]) as p (id, extension)
