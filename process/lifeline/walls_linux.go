package lifeline

import (
	"syscall"
	"unsafe"
)

// Numbers of system calls that package syscall does not have; they are the same on every architecture.
const (
	sysMountSetattr    = 442
	sysLandlockCreate  = 444
	sysLandlockAddRule = 445
	sysLandlockApply   = 446
)

const (
	atRecursive   = 0x8000
	atFDCWD       = ^uintptr(99) // -100
	mountReadOnly = 0x1
	oPath         = 0x200000

	prSetDumpable, prCapbsetDrop, prSetNoNewPrivs, prSetSecurebits, prCapAmbient = 4, 24, 38, 28, 47

	prCapAmbientClearAll = 4
	secureNoRoot         = 0x2f // SECBIT_NOROOT and SECBIT_NO_SETUID_FIXUP, both locked, and keep-caps locked off

	seccompSetFilter    = 1
	seccompNewListener  = 8
	seccompWaitKillable = 32
)

// lay makes what all walls have in common.
func lay(w *Walls) (step int, errno syscall.Errno) {
	if !w.Up {
		return 0, 0
	}
	prctl(prSetDumpable, 0) // the function must not read the helper's memory
	if errno := loopback(w); errno != 0 {
		return StepLoopback, errno
	}
	if w.Stage == "" {
		return 0, 0
	}
	if errno := setStage(w); errno != 0 {
		return StepStage, errno
	}
	return putAll(w.Mounts, 0)
}

// raise makes the walls, in an order in which no step takes away what a later one needs. laid mounts are there.
func raise(w *Walls, laid int) (step int, errno syscall.Errno) {
	if !w.Up {
		return 0, 0
	}
	if errno := listen(w); errno != 0 {
		return StepListen, errno
	}
	if w.Stage != "" {
		if step, errno := putAll(w.Mounts, laid); errno != 0 {
			return step, errno
		}
		if errno := changeRoot(); errno != 0 {
			return StepRoot, errno
		}
	}
	for _, s := range [...]struct {
		step int
		do   func(*Walls) syscall.Errno
	}{
		{StepLimits, limit}, {StepUser, becomeUser}, {StepLandlock, landlock}, {StepCapabilities, giveUp}, {StepSeccomp, filter},
	} {
		if errno := s.do(w); errno != 0 {
			return s.step, errno
		}
	}
	return 0, 0
}

// loopback brings lo up. See netdevice(7).
func loopback(w *Walls) syscall.Errno {
	if w.Port == 0 {
		return 0
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return errnoOf(err)
	}
	defer syscall.Close(fd)
	var request struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	return errno
}

// listen opens the node's doors within the walls and hands them over.
func listen(w *Walls) syscall.Errno {
	for _, port := range w.Ports {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			return errnoOf(err)
		}
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
		if err == nil {
			err = syscall.Listen(fd, 1024)
		}
		if err == nil {
			err = hand(fd, 'L')
		}
		syscall.Close(fd)
		if err != nil {
			return errnoOf(err)
		}
	}
	return 0
}

// hand sends a line with a file.
func hand(fd int, kind byte) error {
	return syscall.Sendmsg(socket, line(kind, 0, 0), syscall.UnixRights(fd), nil, 0)
}

// connect goes where the function listens and hands over what came of it. It does not wait: the function may never accept.
func connect(w *Walls, how byte) {
	family, address := syscall.AF_UNIX, syscall.Sockaddr(&syscall.SockaddrUnix{Name: w.Socket})
	if how == DialPort {
		family, address = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(w.Port), Addr: [4]byte{127, 0, 0, 1}}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err == nil {
		if err = syscall.Connect(fd, address); err == nil || err == syscall.EINPROGRESS {
			err = hand(fd, 'C')
		}
		syscall.Close(fd)
	}
	if err != nil {
		say('C', int(errnoOf(err)), 0)
	}
}

// setStage makes an empty folder on which the new root is put together, and goes there.
func setStage(w *Walls) syscall.Errno {
	err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, "")
	if err == nil {
		err = syscall.Mount("quipu", w.Stage, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "size=1m,mode=755")
	}
	if err == nil {
		err = syscall.Chdir(w.Stage)
	}
	return errnoOf(err)
}

func putAll(mounts []Mount, laid int) (step int, errno syscall.Errno) {
	for i := range mounts {
		if errno := put(&mounts[i]); errno != 0 {
			return stepMountFirst + laid + i, errno
		}
	}
	return 0, 0
}

// changeRoot makes the stage the root; what was there before is gone from sight. The new root goes where the old one was, and the old
// one on top of it, from where it is taken away: pivot_root(2).
func changeRoot() syscall.Errno {
	err := syscall.PivotRoot(".", ".")
	if err == nil {
		err = syscall.Unmount(".", syscall.MNT_DETACH)
	}
	if err == nil {
		err = syscall.Chdir("/")
	}
	return errnoOf(err)
}

// put does one step, in the folder that becomes the root.
func put(m *Mount) syscall.Errno {
	target := "." + m.Target
	switch m.Kind {
	case MountReadOnly:
		return setattr(".", 0, mountReadOnly)
	case MountFolder, MountBind, MountTmpfs, MountProc:
		if errno := makeFolders(target, len(target)); errno != 0 {
			return errno
		}
	default:
		if errno := makeFolders(target, lastSlash(target)); errno != 0 {
			return errno
		}
	}
	switch m.Kind {
	case MountFolder:
		return errnoOf(syscall.Chmod(target, uint32(m.Attr)))
	case MountBind:
		return bind(m.Source, target, m.Attr)
	case MountBindFile:
		if errno := write(target, ""); errno != 0 {
			return errno
		}
		return bind(m.Source, target, m.Attr)
	case MountTmpfs:
		return errnoOf(syscall.Mount("quipu", target, "tmpfs", uintptr(m.Attr), m.Source))
	case MountProc:
		return errnoOf(syscall.Mount("proc", target, "proc", uintptr(m.Attr), ""))
	case MountLink:
		return errnoOf(syscall.Symlink(m.Source, target))
	case MountFile:
		return write(target, m.Source)
	}
	return 0
}

func bind(source, target string, attr uint64) syscall.Errno {
	if err := syscall.Mount(source, target, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return errnoOf(err)
	}
	return setattr(target, atRecursive, attr)
}

// setattr adds attributes to a mount, and to those below it: mount_setattr(2), Linux 5.12.
func setattr(path string, flags uintptr, attr uint64) syscall.Errno {
	p, err := syscall.BytePtrFromString(path)
	if err != nil {
		return errnoOf(err)
	}
	change := struct{ set, clear, propagation, userns uint64 }{set: attr}
	_, _, errno := syscall.Syscall6(sysMountSetattr, atFDCWD, uintptr(unsafe.Pointer(p)), flags,
		uintptr(unsafe.Pointer(&change)), unsafe.Sizeof(change), 0)
	return errno
}

// makeFolders makes path[:end] and what is missing above it.
func makeFolders(path string, end int) syscall.Errno {
	for i := 2; i <= end; i++ {
		if i < end && path[i] != '/' {
			continue
		}
		if err := syscall.Mkdir(path[:i], 0o755); err != nil && err != syscall.EEXIST {
			return errnoOf(err)
		}
	}
	return 0
}

func lastSlash(path string) int {
	end := len(path) - 1
	for end > 1 && path[end] != '/' {
		end--
	}
	return end
}

func write(path, text string) syscall.Errno {
	fd, err := syscall.Open(path, syscall.O_CREAT|syscall.O_WRONLY|syscall.O_CLOEXEC|syscall.O_TRUNC, 0o644)
	if err != nil {
		return errnoOf(err)
	}
	defer syscall.Close(fd)
	for len(text) > 0 {
		n, err := syscall.Write(fd, unsafe.Slice(unsafe.StringData(text), len(text)))
		if err != nil {
			return errnoOf(err)
		}
		text = text[n:]
	}
	return 0
}

func limit(w *Walls) syscall.Errno {
	for i := 0; i+1 < len(w.Limits); i += 2 {
		most := syscall.Rlimit{Cur: w.Limits[i+1], Max: w.Limits[i+1]}
		var now syscall.Rlimit
		if err := syscall.Getrlimit(int(w.Limits[i]), &now); err != nil {
			return errnoOf(err)
		}
		most.Cur, most.Max = min(most.Cur, now.Max), min(most.Max, now.Max)
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, uintptr(w.Limits[i]), uintptr(unsafe.Pointer(&most)), 0, 0, 0); errno != 0 {
			return errno
		}
	}
	return 0
}

// becomeUser changes the ids of this thread only, which is why it does not use package syscall's functions.
func becomeUser(w *Walls) syscall.Errno {
	if w.ID == 0 {
		return 0
	}
	id := uintptr(w.ID)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, id, id, id); errno != 0 {
		return errno
	}
	prctl(prSetSecurebits, secureNoRoot|0x10) // keeps capabilities, which go with giveUp
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, id, id, id)
	return errno
}

// landlock follows landlock(7). A path that is not there gets no rule.
func landlock(w *Walls) syscall.Errno {
	if errno := prctl(prSetNoNewPrivs, 1); errno != 0 || w.Handled == 0 {
		return errno
	}
	attr := struct{ fs, net, scoped uint64 }{w.Handled, w.HandledNet, w.Scoped}
	size := unsafe.Sizeof(attr) // older kernels know a shorter one
	switch {
	case w.Scoped == 0 && w.HandledNet == 0:
		size = 8
	case w.Scoped == 0:
		size = 16
	}
	set, _, errno := syscall.Syscall(sysLandlockCreate, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return errno
	}
	defer syscall.Close(int(set))
	for _, rule := range w.Rules {
		fd, err := syscall.Open(rule.Path, oPath|syscall.O_CLOEXEC, 0)
		if err == syscall.ENOENT {
			continue
		} else if err != nil {
			return errnoOf(err)
		}
		beneath := struct {
			access uint64
			parent int32
		}{rule.Access & w.Handled, int32(fd)}
		_, _, errno := syscall.Syscall6(sysLandlockAddRule, set, 1, uintptr(unsafe.Pointer(&beneath)), 0, 0, 0)
		syscall.Close(fd)
		if errno != 0 {
			return errno
		}
	}
	_, _, errno = syscall.Syscall(sysLandlockApply, set, 0, 0)
	return errno
}

// giveUp leaves this thread, and what it starts, without capabilities and without a way to any.
func giveUp(w *Walls) syscall.Errno {
	if w.Caps == 0 {
		return 0
	}
	prctl(prCapAmbient, prCapAmbientClearAll)
	for c := range w.Caps {
		if errno := prctl(prCapbsetDrop, uintptr(c)); errno != 0 && errno != syscall.EPERM { // without the right to drop there is none to keep
			return errno
		}
	}
	head := struct {
		version uint32
		pid     int32
	}{version: 0x20080522}
	var none [2]struct{ effective, permitted, inheritable uint32 }
	_, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&none)), 0)
	return errno
}

// filter installs the seccomp program on this thread: seccomp(2).
func filter(w *Walls) syscall.Errno {
	if len(w.Filter) == 0 {
		return 0
	}
	program := struct {
		length uint16
		code   *byte
	}{uint16(len(w.Filter) / 8), &w.Filter[0]}
	flags := uintptr(0)
	if w.Notify {
		flags = seccompNewListener | seccompWaitKillable
	}
	fd, _, errno := syscall.Syscall(sysSeccomp, seccompSetFilter, flags, uintptr(unsafe.Pointer(&program)))
	if errno == syscall.EINVAL && w.Notify { // a kernel before 5.19
		fd, _, errno = syscall.Syscall(sysSeccomp, seccompSetFilter, seccompNewListener, uintptr(unsafe.Pointer(&program)))
	}
	if errno != 0 || !w.Notify {
		return errno
	}
	err := hand(int(fd), 'N')
	syscall.Close(int(fd))
	return errnoOf(err)
}

func prctl(option, value uintptr) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, option, value, 0, 0, 0, 0)
	return errno
}

func errnoOf(err error) syscall.Errno {
	errno, ok := err.(syscall.Errno)
	if err != nil && !ok {
		return syscall.EINVAL
	}
	return errno
}
