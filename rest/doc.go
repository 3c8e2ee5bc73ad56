// Package rest serves /rest/v1: PostgREST's language over HTTP, as supabase-js
// speaks it. A request is parsed (request.go, grammar.go, select.go), checked
// against one snapshot of the catalog (plan.go), turned into one parametrised
// statement by a builder that takes no SQL from outside (builder.go, query.go),
// run as the user in one flush, and answered (response.go, errors.go).
package rest
