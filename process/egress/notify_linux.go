package egress

import (
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data: number, architecture, instruction pointer, six arguments of which
// the low word comes first on both of our architectures.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

const msgFastOpen = 0x20000000 // MSG_FASTOPEN of linux/socket.h

// Notify is the part of an instance's seccomp filter that this package needs. What it says
// nothing about goes on after its last instruction, with no register kept. Put it first, and install the filter
// with SECCOMP_FILTER_FLAG_NEW_LISTENER, and SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV where the kernel has it.
//
//	connect                              SECCOMP_RET_USER_NOTIF
//	sendto, sendmsg, sendmmsg with
//	  MSG_FASTOPEN                       EOPNOTSUPP: it would be a connect that nobody sees
//	io_uring_setup                       ENOSYS: its requests pass no filter
//	listen, unless CanLock               SECCOMP_RET_USER_NOTIF: not on a socket that was let out
//	any call of another architecture     ENOSYS: the same calls have other numbers there (i386, x32, arm)
//
// connect is 42 on amd64 and 203 on arm64, listen 50 and 201.
func Notify() []bpf.Instruction {
	filter := []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: nativeArch, SkipTrue: 1},
		refuseWith(unix.ENOSYS),
		bpf.LoadAbsolute{Off: dataNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: foreignNumbers, SkipTrue: 1},
		refuseWith(unix.ENOSYS),
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CONNECT, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_IO_URING_SETUP, SkipTrue: 1},
		refuseWith(unix.ENOSYS),
	}
	if !CanLock() {
		filter = append(filter,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_LISTEN, SkipTrue: 1},
			bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})
	}
	filter = append(filter, refuseFastOpen(unix.SYS_SENDTO, 3)...)
	filter = append(filter, refuseFastOpen(unix.SYS_SENDMSG, 2)...)
	return append(filter, refuseFastOpen(unix.SYS_SENDMMSG, 3)...)
}

// refuseFastOpen is for a call whose argument arg has its flags.
func refuseFastOpen(number uint32, arg uint32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number, SkipTrue: 3},
		bpf.LoadAbsolute{Off: dataArgs + 8*arg, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: msgFastOpen, SkipTrue: 1},
		refuseWith(unix.EOPNOTSUPP),
	}
}

func refuseWith(errno unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// The structures of linux/seccomp.h; Probe compares their sizes with the kernel's.
type (
	seccompData struct {
		number int32
		arch   uint32
		ip     uint64
		args   [6]uint64
	}
	notification struct {
		id    uint64
		tid   uint32 // of the calling thread, in our pid namespace
		flags uint32
		data  seccompData
	}
	response struct {
		id    uint64
		val   int64
		errno int32 // negative
		flags uint32
	}
	addFD struct {
		id       uint64
		flags    uint32
		src      uint32
		dst      uint32
		dstFlags uint32
	}
	notificationSizes struct{ notification, response, data uint16 }
)

// door answers notifications. Its methods fail with ENOENT once the call is over, as its thread was
// killed or a signal interrupted it, and with os.ErrClosed after Close.
type door struct{ raw syscall.RawConn }

// answer ends the call with errno, 0 for success.
func (d door) answer(id uint64, errno unix.Errno) error {
	return d.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&response{id: id, errno: -int32(errno)}))
}

// carryOn lets the kernel run the call as if there were no filter.
func (d door) carryOn(id uint64) error {
	return d.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&response{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}))
}

// valid says whether the caller still waits for the answer.
func (d door) valid(id uint64) bool {
	return d.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)) == nil
}

// place puts our src in the place of the caller's dst. SECCOMP_ADDFD_FLAG_SEND, which would answer in the
// same step, is of no use: it answers dst, and connect answers 0.
func (d door) place(id uint64, src, dst int, closeOnExec bool) error {
	add := addFD{id: id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, src: uint32(src), dst: uint32(dst)}
	if closeOnExec {
		add.dstFlags = unix.O_CLOEXEC
	}
	return d.ioctl(unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add))
}

func (d door) ioctl(request uintptr, arg unsafe.Pointer) (err error) {
	if closed := d.raw.Control(func(fd uintptr) { err = ioctl(fd, request, arg) }); closed != nil {
		return closed
	}
	return err
}

// receive must be called only if poll(2) says that there is a notification: it would block.
func receive(fd int, n *notification) error {
	*n = notification{} // the kernel refuses one that is not zero
	return ioctl(uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
}

func ioctl(fd, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
