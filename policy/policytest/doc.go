// Package policytest compares what a tier of package policy says about rows with
// what PostgreSQL itself shows: it generates schemas, policies, rows and claims
// from a seed, asks PostgreSQL by select as the user (the oracle), asks the
// deciders, and shrinks what they disagree about to a case that a person can read.
// Equality is the invariant: an error is a no, for the row that raises it.
//
// A new tier implements Decider and is handed to Run and Replay.
package policytest
