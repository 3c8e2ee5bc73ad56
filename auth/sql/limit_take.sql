-- Takes one use from a bucket and returns 0, or the seconds to wait when it is
-- empty. $3 is the time in which a use is earned back, $4 how far ahead of time the
-- bucket may be used.
with taken as (
  insert into sluice.auth_limits as l (name, full_at) values ($1, $2::timestamptz + $3::interval)
  on conflict (name) do update set full_at = greatest(l.full_at, $2) + $3::interval
  where greatest(l.full_at, $2) <= $2 + $4::interval
  returning 1
)
select case
  when exists (select from taken) then 0
  else coalesce((select greatest(extract(epoch from full_at - $2 - $4::interval), 0.001) from sluice.auth_limits where name = $1),
                extract(epoch from $3::interval))
end::float8
