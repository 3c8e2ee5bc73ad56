// Package project reads a Supabase project's folder: supabase/config.toml with
// its environment, migrations, roles and seeds, and applies them to a database
// in the way of the Supabase CLI, history tables included, so that one can go
// back to it at any time. It does not start anything.
package project
