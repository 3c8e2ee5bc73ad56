// Package token turns API keys and JWTs into verified claims, and signs the
// access tokens that Auth issues. Every service verifies through it: one set of
// keys, one set of rules (spec realtime-protocol 1.5, auth 2.3).
package token
