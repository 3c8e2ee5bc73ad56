// Package wal owns the replication slot: it makes it, streams it, assembles the
// changes of each transaction into bounded batches in commit order, hands them
// on, and acknowledges what was handed on. It judges nothing; who may see a
// change is decided by package changes.
package wal
