-- Making and dropping a partition of realtime.messages takes the table's
-- strongest lock. Behind a user's long transaction that has sent something it
-- would wait, and every realtime.send of others behind it. So it gives up after
-- two seconds; whoever calls it tries again later.
alter function sluice.make_message_partitions(integer, integer) set lock_timeout = '2s';
alter function sluice.drop_message_partitions() set lock_timeout = '2s';
