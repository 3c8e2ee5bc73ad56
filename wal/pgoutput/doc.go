// Package pgoutput decodes the messages of PostgreSQL's output plugin pgoutput,
// protocol version 1 with text values and logical messages. It does no I/O and
// knows nothing of transactions: bytes in, one message out.
//
// Version 1 is asked for on purpose: the server then sends a transaction after
// its commit, and spills a large one to its own disk instead of our memory.
package pgoutput
