-- The newest rows of a private topic that were broadcast since $2, newest first.
-- What could not be delivered live is not replayed. Rows of one transaction have
-- one time and lie in the order of their insertion. $3 bounds the rows and $4 the
-- bytes of each.
select id::text, event, payload::text, binary_payload
  from realtime.messages
 where topic = $1
   and private is true
   and extension = 'broadcast'
   and inserted_at >= $2::timestamptz at time zone 'UTC'
   and inserted_at < now() at time zone 'UTC' + interval '1 minute'
   and event is not null
   and coalesce(octet_length(binary_payload), octet_length(payload::text)) <= $4
 order by inserted_at desc, ctid desc
 limit $3
