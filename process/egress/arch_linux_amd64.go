package egress

import "golang.org/x/sys/unix"

const (
	nativeArch     = unix.AUDIT_ARCH_X86_64
	foreignNumbers = 0x40000000 // numbers from here are x32's, on the same architecture
)
