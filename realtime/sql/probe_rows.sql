-- The rows that a read probe looks for, one for each extension.
insert into realtime.messages (id, topic, extension, inserted_at, updated_at)
select p.id, $1::text, p.extension, $4::timestamp, $4::timestamp
  from unnest($2::uuid[], $3::text[]) as p (id, extension)
