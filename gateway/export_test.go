package gateway

// Limits that tests reach for.
const (
	MaxHeaderBytes = maxHeaderBytes
	MaxURLBytes    = maxURLBytes
	StallTimeout   = stallTimeout
	TakeTimeout    = takeTimeout
	PartSize       = partSize
)

// Canonical is canonical, for the fuzzer.
var Canonical = canonical
