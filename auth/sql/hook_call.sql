select sluice.call_hook($1, $2, $3)
