// Package policy judges rows by row level security. It holds what the catalog
// says about a table's SELECT policies and turns them into one statement that
// evaluates them over given row images, as the user, under pg.AsEach (tier 3 of
// the design: exact for every policy), unless they show every row (tier 0). The only raw SQL in it is what
// PostgreSQL's own pg_get_expr has written.
package policy
