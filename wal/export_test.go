package wal

// ForkIn reads a history file.
var ForkIn = forkIn
