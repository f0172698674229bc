//go:build !amd64 && !arm64

package egress

// Nobody has tried it on these; Probe says so.
const (
	nativeArch     = 0
	foreignNumbers = 0x80000000
)
