-- The column is unique over all factors: the clock of the database is fine enough.
update auth.mfa_factors set last_challenged_at = clock_timestamp() where id = $1
