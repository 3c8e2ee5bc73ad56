// Package rest serves /rest/v1: PostgREST's language over HTTP, as supabase-js
// speaks it. A request is parsed (request.go, params.go, select.go, filter.go),
// checked against one snapshot of the catalog (plan.go, resolve.go), turned into
// one parametrised statement by a builder that takes no SQL from outside
// (builder.go, read.go, write.go, call.go), run as the user in one flush
// (server.go), and answered (response.go, errors.go).
//
// Everything before the statement is pure and takes no connection. The body of an
// answer is one value that PostgreSQL has written; it is passed on as it is.
package rest
