select exists (select from auth.sessions where id = $1)
