package sandbox

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/quipu-run/quipu/process/lifeline"
)

// Rights of landlock(7).
const (
	fsRead  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	fsFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV // those that a file can have
	fsAll = 1<<16 - 1
)

// handled is what the kernel's version of landlock can restrict: files since 1, renaming across folders since 2, truncation since
// 3, TCP since 4, ioctl of devices since 5, signals and abstract sockets since 6. supervised says that the node makes all TCP
// connections of the function, so that it may make none itself: see package egress.
func (m *Machine) handled(supervised bool) (fs, net, scoped uint64) {
	fs = 1<<13 - 1
	if m.landlock >= 2 {
		fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if m.landlock >= 3 {
		fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if m.landlock >= 4 && supervised {
		net = unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if m.landlock >= 5 {
		fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if m.landlock >= 6 {
		scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	return fs, net, scoped
}

// rules allow what the mounts show. Where there are no mounts of its own, they are the wall.
func (m *Machine) rules(w Wish) []lifeline.Rule {
	rules := []lifeline.Rule{
		{Path: "/proc", Access: fsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE},
	}
	for _, name := range devices {
		rules = append(rules, lifeline.Rule{Path: "/dev/" + name, Access: fsRead&fsFiles | unix.LANDLOCK_ACCESS_FS_WRITE_FILE})
	}
	if m.Namespaces != NoNamespaces {
		return append(rules, lifeline.Rule{Path: "/", Access: fsRead}, lifeline.Rule{Path: "/tmp", Access: fsAll},
			lifeline.Rule{Path: "/dev/shm", Access: fsAll}, lifeline.Rule{Path: "/run/quipu", Access: fsAll})
	}
	read := slices.Concat([]string{w.Root}, system, m.search, m.programs(w))
	for _, name := range settings {
		read = append(read, "/etc/"+name)
	}
	for _, path := range append(read, "/etc/passwd", "/etc/group", "/etc/hostname") {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			rules = append(rules, lifeline.Rule{Path: path, Access: fsRead})
		} else if err == nil {
			rules = append(rules, lifeline.Rule{Path: path, Access: fsRead & fsFiles})
		}
	}
	return append(rules, lifeline.Rule{Path: w.Scratch, Access: fsAll})
}
