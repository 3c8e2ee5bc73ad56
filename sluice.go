// Package sluice holds the words that Sluice's packages share: who a request
// acts as, why a request was refused, what a channel asks of the change feed.
// It contains values and their small helpers, no I/O, and imports nothing else
// of this module. Services meet through these types and in cmd/sluice; they
// never import one another (ARCHITECTURE.md holds the table).
package sluice

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"
)

// Kinds of errors that cross packages, asked with errors.Is. Each edge (auth,
// rest, realtime) has one table from kind to what a stock client expects.
var (
	ErrNotFound     = errors.New("not found")
	ErrForbidden    = errors.New("forbidden")
	ErrConflict     = errors.New("conflict")
	ErrInvalid      = errors.New("invalid")
	ErrUnavailable  = errors.New("unavailable") // the database cannot be reached or is starting
	ErrTimeout      = errors.New("timeout")     // a statement or lock time limit
	ErrUnauthorized = errors.New("unauthorized")
)

// Causes of refused tokens, asked with errors.Is on a *Refusal: a service that
// answers in its own format tells them apart.
var (
	ErrTokenExpired   = errors.New("token has expired")
	ErrTokenClaims    = errors.New("token lacks a claim or has one of the wrong type")
	ErrTokenSignature = errors.New("token signature does not match")
	ErrTokenKey       = errors.New("token names no key of this project")
	ErrTokenForm      = errors.New("token is not a JWT")
)

// Log keys. A package that logs one of these things uses the constant, so that
// one grep finds every line about a connection or a table.
const (
	LogRequest = "request" // request id, as in the X-Request-Id header
	LogConn    = "conn"    // number of a WebSocket connection
	LogTopic   = "topic"
	LogTable   = "table" // schema.table
	LogRole    = "role"  // PostgreSQL role
	LogSlot    = "slot"
	LogLSN     = "lsn"
	LogNode    = "node"
	LogCode    = "code"  // a refusal's code
	LogKeyKind = "key"   // kind of API key and where it was found, never the key
	LogError   = "error" // private cause
)

// Secret is a string that must not be printed: every formatting verb, slog and
// encoding/json show stars. Convert with string(s) at the one place of use.
type Secret string

const stars = "****"

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return stars
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the value from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the value from encoding/json and friends.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Claims is a verified identity: what PostgreSQL is told about the user. It is
// made by package token alone and never from unverified input.
type Claims struct {
	// Role is the PostgreSQL role that statements run as (claim "role").
	Role string
	// Subject is the user's id (claim "sub"); empty for API keys.
	Subject string
	// SessionID is the Auth session (claim "session_id"); empty for API keys.
	SessionID string
	// ExpiresAt is claim "exp", truncated to seconds; the zero time for an
	// identity that does not expire (opaque API keys).
	ExpiresAt time.Time
	// JSON is the claims object exactly as signed; it becomes the setting
	// request.jwt.claims. Never nil in a Claims made by package token.
	JSON json.RawMessage
}

// IsZero reports whether c names nobody.
func (c Claims) IsZero() bool { return c.Role == "" }

// KeyKind says which kind of API key a request carried.
type KeyKind string

// Kinds of API keys.
const (
	KeyNone        KeyKind = "none"
	KeyPublishable KeyKind = "publishable" // sb_publishable_…, role anon
	KeySecret      KeyKind = "secret"      // sb_secret_…, role service_role
	KeyJWT         KeyKind = "jwt"         // legacy anon or service_role JWT, or any JWT sent as the key
)

// Identity is what the gateway found out about a request, once, for every
// service behind it. Services take it from the context and never look at key
// or token headers themselves.
type Identity struct {
	// Claims is who the request acts as: the bearer token's claims when one
	// was sent and is valid, else the API key's, else role anon.
	Claims Claims
	// KeyClaims is the API key's own identity. A socket falls back to it for
	// joins without a token and for tokens that start with "sb_".
	KeyClaims Claims
	// Key and KeyPlace tell kind and place of the API key ("header", "query",
	// "bearer"), for logs.
	Key      KeyKind
	KeyPlace string
	// Bearer is the JWT of the Authorization header as sent; empty if there was
	// none or an opaque API key stood in its place.
	Bearer Secret
	// BearerErr tells why Bearer did not verify. Claims is then the key's
	// identity, which a service must not use in its place: it answers the
	// refusal in its own format. It is set for an Authorization header that says
	// Bearer and nothing else, too, with Bearer empty.
	BearerErr *Refusal
	// Refusal is set only on a socket in explain mode: the handshake should
	// have been refused; the socket answers every join with it.
	Refusal *Refusal
	// RequestID is sent back in X-Request-Id and stands in every log line.
	RequestID string
}

type identityKey struct{}

// WithIdentity returns a context that carries id.
func WithIdentity(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// IdentityFrom returns the identity that the gateway put into ctx, or false.
func IdentityFrom(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}

// RedactKey shortens an API key or token for logs: its kind and a few
// characters, never enough to use it.
func RedactKey(key string) string {
	const keep = 4
	for _, prefix := range []string{"sb_publishable_", "sb_secret_"} {
		if len(key) >= len(prefix) && key[:len(prefix)] == prefix {
			rest := key[len(prefix):]
			if prefix == "sb_secret_" || len(rest) <= keep {
				return prefix + "…"
			}
			return prefix + rest[:keep] + "…"
		}
	}
	if key == "" {
		return ""
	}
	if len(key) > 2 && key[:2] == "ey" {
		return "jwt…"
	}
	return "other…"
}
