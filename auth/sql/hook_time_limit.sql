-- Sets the transaction's time limit of a statement and returns the one before.
select current_setting('statement_timeout'), set_config('statement_timeout', $1, true)
