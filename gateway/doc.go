// Package gateway is the one listener that clients talk to. It matches the
// route, resolves API key and token once into a sluice.Identity, answers CORS,
// bounds headers and bodies, writes the access log, and refuses with a code and
// a remedy. What is behind a route never looks at key headers again.
package gateway
