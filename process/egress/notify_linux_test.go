package egress

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// filterSays runs Notify, followed by "allow", on a system call.
func filterSays(t *testing.T, arch, number uint32, args ...uint32) uint32 {
	t.Helper()
	vm, err := bpf.NewVM(append(Notify(), bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}))
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, dataArgs+6*8) // words as the VM reads them; the low word of an argument is first
	binary.BigEndian.PutUint32(data[dataNumber:], number)
	binary.BigEndian.PutUint32(data[dataArch:], arch)
	for i, arg := range args {
		binary.BigEndian.PutUint32(data[dataArgs+8*i:], arg)
	}
	verdict, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

func TestTheFilterAsksForConnectAndLeavesTheRestAlone(t *testing.T) {
	const errno, allow, ask = unix.SECCOMP_RET_ERRNO, unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_USER_NOTIF
	const fast = msgFastOpen | unix.MSG_NOSIGNAL
	listening := map[bool]uint32{true: allow, false: ask}
	before := canLock
	defer func() { canLock = before }()
	for _, locks := range []bool{true, false} {
		canLock = func() bool { return locks }
		for name, c := range map[string]struct{ got, want uint32 }{
			"connect":            {filterSays(t, nativeArch, unix.SYS_CONNECT, 3), ask},
			"listen":             {filterSays(t, nativeArch, unix.SYS_LISTEN, 3), listening[locks]},
			"bind":               {filterSays(t, nativeArch, unix.SYS_BIND, 3), allow},
			"read":               {filterSays(t, nativeArch, unix.SYS_READ, 3), allow},
			"io_uring_setup":     {filterSays(t, nativeArch, unix.SYS_IO_URING_SETUP, 3), errno | uint32(unix.ENOSYS)},
			"sendto":             {filterSays(t, nativeArch, unix.SYS_SENDTO, 3, 1, 1, unix.MSG_NOSIGNAL), allow},
			"sendto, fast open":  {filterSays(t, nativeArch, unix.SYS_SENDTO, 3, 1, 1, fast), errno | uint32(unix.EOPNOTSUPP)},
			"sendmsg":            {filterSays(t, nativeArch, unix.SYS_SENDMSG, 3, 1, 0, fast), allow},
			"sendmsg, fast open": {filterSays(t, nativeArch, unix.SYS_SENDMSG, 3, 1, fast), errno | uint32(unix.EOPNOTSUPP)},
			"sendmmsg":           {filterSays(t, nativeArch, unix.SYS_SENDMMSG, 3, 1, fast, 0), allow},
			"sendmmsg, fast":     {filterSays(t, nativeArch, unix.SYS_SENDMMSG, 3, 1, 2, fast), errno | uint32(unix.EOPNOTSUPP)},
			"i386":               {filterSays(t, unix.AUDIT_ARCH_I386, 362, 3), errno | uint32(unix.ENOSYS)},
			"arm":                {filterSays(t, unix.AUDIT_ARCH_ARM, 283, 3), errno | uint32(unix.ENOSYS)},
			"x32 or none":        {filterSays(t, nativeArch, foreignNumbers|unix.SYS_CONNECT, 3), errno | uint32(unix.ENOSYS)},
		} {
			if c.got != c.want {
				t.Errorf("locks %v: %s: %#x, want %#x", locks, name, c.got, c.want)
			}
		}
	}
}
