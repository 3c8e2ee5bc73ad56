-- Data that pg_dump wrote (`supabase db dump --data-only`) begins by setting
-- session_replication_role = replica, which takes a superuser or this grant.

-- The settings that Supabase's images let postgres change although it is none.
grant set on parameter session_replication_role, log_lock_waits, log_min_duration_statement, log_min_messages, log_parameter_max_length,
  log_replication_commands, log_statement, log_temp_files, track_functions, track_io_timing, wal_compression to postgres;

-- Such a session is heard as any other: what it changes in the catalog decides
-- who sees what.
alter event trigger pgrst_ddl_watch enable always;
alter event trigger pgrst_drop_watch enable always;
alter event trigger sluice_ddl_command_end enable always;
alter event trigger sluice_sql_drop enable always;
