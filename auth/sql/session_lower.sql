update auth.sessions
set aal = 'aal1', factor_id = null
where id in (select id from auth.sessions where factor_id = $1 order by id for update)
