package gateway

// Limits that tests reach for.
const (
	MaxHeaderBytes = maxHeaderBytes
	MaxURLBytes    = maxURLBytes
	StallTimeout   = stallTimeout
)

// Canonical is canonical, for the fuzzer.
var Canonical = canonical
