// Package policy judges rows by row level security. Compile turns the SELECT
// policies of a table, for one role, into the cheapest Plan that decides as
// PostgreSQL would: a constant, a predicate that is evaluated here over the row and
// the claims, or one statement for many rows and all who ask (tiers 0 to 2 of the
// design). Table.CheckSQL is the statement of tier 3, which evaluates any policy over
// given row images as the user, under pg.AsEach. The only raw SQL in it is what
// PostgreSQL's own pg_get_expr has written; the rest is written from its analysed
// tree. Package changes calls both, and chooses.
package policy
