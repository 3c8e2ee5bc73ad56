// Package pg is the one door to PostgreSQL: pools, transactions as a role with
// claims, migrations, and the translation of SQLSTATEs into kinds of errors.
//
// Only this package sets a role or claims (As, AsEach, Pipeline): for one
// transaction, never in the statement that reads. A connection is returned to
// the pool clean or closed.
package pg
