package sandbox

import (
	"encoding/binary"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/quipu-run/quipu/process/egress"
)

// Actions and offsets of seccomp(2).
const (
	retAllow = 0x7fff0000
	retErrno = 0x00050000
	retKill  = 0x80000000

	offsetNumber = 0
	offsetArch   = 4
	offsetArg0   = 16 // its low half
)

// newNamespaces are the flags of clone(2) that make some.
const newNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// refused are the system calls that functions have no business with: those that change the machine, look into others, or have a long
// record of holes and no use here. They fail with EPERM.
var refused = append([]uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN,
	unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_MADVISE,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_NFSSERVCTL, unix.SYS_VHANGUP,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX,
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK,
	unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES, unix.SYS_MBIND, unix.SYS_SET_MEMPOLICY,
}, refusedHere...)

// absent are system calls that programs do without if the kernel says that it has none of them (ENOSYS): the flags of clone3 are in
// memory, where a filter cannot read them, and what a ring of io_uring does passes no filter.
var absent = []uint32{unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// newestKnown is the highest number that was looked at when the lists were made; what is newer is absent too.
const newestKnown = 462 // mseal

// families of sockets that functions may open.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// The programs that there are, each made once.
var (
	plainFilter      = sync.OnceValue(func() []byte { return filter(false) })
	supervisedFilter = sync.OnceValue(func() []byte { return filter(true) })
)

// filter is the program: each system call falls through the tests until one returns. With notify, package egress is asked.
func filter(notify bool) []byte {
	errno := func(e uint32) uint32 { return retErrno | e }
	var program []bpf.Instruction
	if notify {
		program = egress.Notify()
	}
	program = append(program,
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		bpf.RetConstant{Val: retKill},
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
	)
	test := func(number, verdict uint32) {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number, SkipTrue: 1}, bpf.RetConstant{Val: verdict})
	}
	program = append(program, bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: newestKnown, SkipTrue: 1}, bpf.RetConstant{Val: errno(uint32(unix.ENOSYS))})
	for _, n := range refused {
		test(n, errno(uint32(unix.EPERM)))
	}
	for _, n := range absent {
		test(n, errno(uint32(unix.ENOSYS)))
	}
	// clone with namespaces
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLONE, SkipTrue: 4},
		bpf.LoadAbsolute{Off: offsetArg0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: newNamespaces, SkipFalse: 1},
		bpf.RetConstant{Val: errno(uint32(unix.EPERM))},
		bpf.RetConstant{Val: retAllow},
	)
	// sockets of other families
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SOCKET, SkipTrue: uint8(len(families) + 2)},
		bpf.LoadAbsolute{Off: offsetArg0, Size: 4})
	for i, family := range families {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: family, SkipTrue: uint8(len(families) - i)})
	}
	program = append(program, bpf.RetConstant{Val: errno(uint32(unix.EAFNOSUPPORT))}, bpf.RetConstant{Val: retAllow})
	return assemble(program)
}

// assemble panics for a program that cannot be: it has no input.
func assemble(program []bpf.Instruction) []byte {
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic(err)
	}
	code := make([]byte, 0, 8*len(raw))
	for _, i := range raw {
		code = binary.NativeEndian.AppendUint16(code, i.Op)
		code = append(code, i.Jt, i.Jf)
		code = binary.NativeEndian.AppendUint32(code, i.K)
	}
	return code
}
