package gateway

// Limits that tests reach for.
const (
	MaxHeaderBytes = maxHeaderBytes
	MaxURLBytes    = maxURLBytes
	StallTimeout   = stallTimeout
)
