package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Probe says why this machine cannot let instances out, nil if it can (Linux 5.14 or newer). Without, an
// instance has its loopback only. It is asked once and remembered.
func Probe() error { return probe() }

var probe = sync.OnceValue(func() error {
	if nativeArch == 0 {
		return errors.New("egress: only on amd64 and arm64")
	}
	for _, check := range []struct {
		what string
		do   func() error
	}{
		{"seccomp notifications (CONFIG_SECCOMP_FILTER, not in gVisor)", probeSeccomp},
		{"pidfd_getfd (Linux 5.6) and /proc", probePidfd},
		{"process_vm_readv (CONFIG_CROSS_MEMORY_ATTACH)", probeMemory},
		{"cookies of network namespaces (Linux 5.14)", probeCookie},
	} {
		if err := check.do(); err != nil {
			return fmt.Errorf("egress needs %s: %w", check.what, err)
		}
	}
	return nil
})

// CanLock says whether sockets that are let out can be locked to their peer on this machine, by this
// process. Kernels that keep classic BPF from ordinary users (EPERM without CAP_NET_ADMIN) cannot. See the package's
// comment for what that means. It is asked once and remembered.
func CanLock() bool { return canLock() }

var canLock = sync.OnceValue(func() bool { return probeLock() == nil })

func probeSeccomp() error {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	if _, err := seccompCall(unix.SECCOMP_GET_ACTION_AVAIL, 0, unsafe.Pointer(&action)); err != nil {
		return err
	}
	var sizes notificationSizes
	if _, err := seccompCall(unix.SECCOMP_GET_NOTIF_SIZES, 0, unsafe.Pointer(&sizes)); err != nil {
		return err
	}
	ours := notificationSizes{
		uint16(unsafe.Sizeof(notification{})), uint16(unsafe.Sizeof(response{})), uint16(unsafe.Sizeof(seccompData{})),
	}
	if sizes != ours {
		return fmt.Errorf("the kernel's structures have sizes %v, ours %v", sizes, ours)
	}
	return nil
}

func probePidfd() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // only asked
	again, err := copySocket(unix.Gettid(), fd)
	if err != nil {
		return err
	}
	if err := unix.Close(again); err != nil {
		return err
	}
	_, err = closesOnExec(unix.Gettid(), fd)
	return err
}

func probeMemory() error {
	raw := unix.RawSockaddrInet4{Family: unix.AF_INET}
	d, err := readDestination(unix.Getpid(), uint64(uintptr(unsafe.Pointer(&raw))), unix.SizeofSockaddrInet4)
	if err == nil && d.family != unix.AF_INET {
		return errors.New("read something else than what was there")
	}
	return err
}

func probeCookie() error {
	cookie, err := homeCookie()
	if err == nil && cookie == 0 {
		return errors.New("the cookie is 0")
	}
	return err
}

func probeLock() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // only asked
	return lock(fd, netip.AddrPortFrom(netip.IPv6Loopback(), 1))
}
