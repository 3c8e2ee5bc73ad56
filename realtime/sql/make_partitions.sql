select sluice.make_message_partitions()
