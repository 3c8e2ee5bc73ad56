-- The tenants that Supabase Realtime knows.
select coalesce(json_agg(external_id), '[]') from (select external_id from _realtime.tenants order by 1 limit 20) t
