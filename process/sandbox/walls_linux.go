package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/quipu-run/quipu/process/lifeline"
)

// Addresses within a network namespace of one's own, where every port is free.
const (
	Port       = 8080
	SocketPath = "/run/quipu/function.sock"
)

// inside is the user and group that a function sees itself as.
const inside = 1000

// Wish is what an instance is to have.
type Wish struct {
	Number    int    // of the instance, for an id of its own
	Dir       string // where the function starts
	Root      string // folder with all of its source
	Program   string // absolute
	Tmp       int64  // bytes of /tmp
	Memory    int64  // bytes, for rlimits; 0 unlimited
	Processes int
	Ports     []int  // listeners for the node
	Scratch   string // its folder for what it writes where it has no namespaces
}

// Ground is what the walls of all instances have in common.
func (m *Machine) Ground() lifeline.Walls {
	if m.Namespaces == NoNamespaces {
		return lifeline.Walls{Up: true}
	}
	return lifeline.Walls{Up: true, Port: Port, Stage: m.stage, Mounts: m.base}
}

// Walls are the steps for a wish, on that ground.
func (m *Machine) Walls(w Wish) lifeline.Walls {
	walls := lifeline.Walls{Up: true, Limits: m.limits(w), Caps: uint64(m.lastCap + 1)}
	if m.Namespaces != NoNamespaces {
		for _, port := range w.Ports {
			walls.Ports = append(walls.Ports, uint64(port))
		}
		walls.Socket, walls.Port = SocketPath, Port
		walls.Stage, walls.Mounts = m.stage, m.mounts(w)
		walls.ID = m.becomes(w.Number)
	}
	if m.Seccomp {
		walls.Notify = m.egress == nil && m.Namespaces != NoNamespaces
		walls.Filter = plainFilter()
		if walls.Notify {
			walls.Filter = supervisedFilter()
		}
	}
	if m.landlock > 0 {
		walls.Handled, walls.HandledNet, walls.Scoped = m.handled(walls.Notify)
		walls.Rules = m.rules(w)
	}
	return walls
}

// system are the folders of the machine that functions read: programs, libraries, and what they are configured by.
var system = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store"}

// settings are what programs read of /etc. The rest may hold secrets.
var settings = []string{
	"alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version", "fonts", "gai.conf", "host.conf", "hosts", "java",
	"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "magic", "mime.types", "nsswitch.conf", "os-release", "pki", "protocols",
	"python3", "resolv.conf", "services", "ssl", "timezone", "xml",
}

var devices = []string{"null", "zero", "full", "random", "urandom"}

const (
	readOnly    = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	deviceAttr  = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	nothingElse = unix.MS_NOSUID | unix.MS_NODEV
)

// mounts are what an instance's root has besides the base.
func (m *Machine) mounts(w Wish) []lifeline.Mount {
	mine := fmt.Sprintf("uid=%d,gid=%d", inside, inside)
	if m.Namespaces == RootNamespaces {
		mine = fmt.Sprintf("uid=%d,gid=%d", m.idBase+w.Number%idCount, m.idBase+w.Number%idCount)
	}
	all := []lifeline.Mount{
		lifeline.Mount{Kind: lifeline.MountTmpfs, Source: fmt.Sprintf("size=%d,mode=1777", w.Tmp), Target: "/tmp", Attr: nothingElse},
		lifeline.Mount{Kind: lifeline.MountTmpfs, Source: "size=64k,mode=700," + mine, Target: filepath.Dir(SocketPath), Attr: nothingElse | unix.MS_NOEXEC},
		lifeline.Mount{Kind: lifeline.MountTmpfs, Source: fmt.Sprintf("size=%d,mode=1777", w.Tmp), Target: "/dev/shm", Attr: nothingElse | unix.MS_NOEXEC},
	}
	for _, dir := range m.programs(w) {
		all = append(all, bindOf(dir)...)
	}
	all = append(all, lifeline.Mount{Kind: lifeline.MountBind, Source: w.Root, Target: w.Root, Attr: readOnly})
	for _, dir := range m.secret {
		if within(w.Root, []string{dir}) && dir != w.Root { // the way to its own source is there, but not to be listed
			all = append(all, lifeline.Mount{Kind: lifeline.MountFolder, Target: dir, Attr: 0o111})
		}
	}
	all = append(all, lifeline.Mount{Kind: lifeline.MountReadOnly})
	return all
}

// baseMounts is what the roots of all instances have in common.
func (m *Machine) baseMounts(private []string) (all []lifeline.Mount) {
	for _, dir := range system {
		all = append(all, bindOf(dir)...)
	}
	for _, name := range settings {
		all = append(all, bindOf("/etc/"+name)...)
	}
	who := "function:x:" + strconv.Itoa(inside) + ":"
	all = append(all,
		lifeline.Mount{Kind: lifeline.MountFile, Target: "/etc/passwd", Source: who + strconv.Itoa(inside) + "::/tmp:/bin/sh\n"},
		lifeline.Mount{Kind: lifeline.MountFile, Target: "/etc/group", Source: who + "\n"},
		lifeline.Mount{Kind: lifeline.MountFile, Target: "/etc/hostname", Source: "function\n"},
		lifeline.Mount{Kind: lifeline.MountProc, Target: "/proc", Attr: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		lifeline.Mount{Kind: lifeline.MountLink, Target: "/var/tmp", Source: "/tmp"},
		lifeline.Mount{Kind: lifeline.MountLink, Target: "/var/run", Source: "/run"},
		lifeline.Mount{Kind: lifeline.MountLink, Target: "/dev/fd", Source: "/proc/self/fd"},
		lifeline.Mount{Kind: lifeline.MountLink, Target: "/dev/stdin", Source: "/proc/self/fd/0"},
		lifeline.Mount{Kind: lifeline.MountLink, Target: "/dev/stdout", Source: "/proc/self/fd/1"},
		lifeline.Mount{Kind: lifeline.MountLink, Target: "/dev/stderr", Source: "/proc/self/fd/2"},
	)
	for _, name := range devices {
		all = append(all, lifeline.Mount{Kind: lifeline.MountBindFile, Source: "/dev/" + name, Target: "/dev/" + name, Attr: deviceAttr})
	}
	for _, dir := range m.search {
		all = append(all, bindOf(dir)...)
	}
	for _, dir := range private {
		if within(dir, system) {
			all = append(all, lifeline.Mount{Kind: lifeline.MountTmpfs, Source: "size=1m,mode=755", Target: dir, Attr: nothingElse})
		}
	}
	return all
}

// bindOf shows what is at path: a link as the link it is, a folder or a file read-only, nothing if there is nothing.
func bindOf(path string) []lifeline.Mount {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil
	case info.Mode()&os.ModeSymlink != 0 && filepath.Dir(path) != "/":
		return linked(path)
	case info.Mode()&os.ModeSymlink != 0: // /bin -> usr/bin, of a merged /usr
		to, err := os.Readlink(path)
		if err != nil {
			return nil
		}
		return []lifeline.Mount{{Kind: lifeline.MountLink, Source: to, Target: path}}
	case info.IsDir():
		return []lifeline.Mount{{Kind: lifeline.MountBind, Source: path, Target: path, Attr: readOnly}}
	case info.Mode().IsRegular():
		return []lifeline.Mount{{Kind: lifeline.MountBindFile, Source: path, Target: path, Attr: readOnly}}
	}
	return nil
}

// linked shows what a link of /etc leads to in its place: /etc/resolv.conf may lead to /run, which is not there.
func linked(path string) []lifeline.Mount {
	to, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil
	}
	info, err := os.Stat(to)
	if err != nil {
		return nil
	}
	kind := byte(lifeline.MountBindFile)
	if info.IsDir() {
		kind = lifeline.MountBind
	}
	return []lifeline.Mount{{Kind: kind, Source: to, Target: path, Attr: readOnly}}
}

// searched are the places outside of the system's folders that programs on a search path are read from: a version manager below
// somebody's home, say. What holds something private is never shown, only what is needed of it.
func (m *Machine) searched(path string) (shown []string) {
	for _, dir := range filepath.SplitList(path) {
		shown = show(shown, m.belongings(filepath.Clean(dir))...)
	}
	return shown
}

// programs are the places besides, that the function's own program is read from.
func (m *Machine) programs(w Wish) (shown []string) {
	if real, err := filepath.EvalSymlinks(w.Program); err == nil {
		shown = show(shown, append(m.belongings(filepath.Dir(real)), real)...)
	}
	shown = show(shown, w.Program)
	return slices.DeleteFunc(shown, func(path string) bool { return within(path, m.search) || within(path, []string{w.Root}) })
}

// show adds paths that are there and are not shown already.
func show(shown []string, paths ...string) []string {
	for _, path := range paths {
		if !within(path, system) && !within(path, shown) && exists(path) {
			shown = append(slices.DeleteFunc(shown, func(s string) bool { return within(s, []string{path}) }), path)
		}
	}
	return shown
}

// parts are what version managers keep programs and their libraries in. Beside them may be credentials.
var parts = []string{"bin", "sbin", "shims", "lib", "lib64", "libexec", "include", "versions", "version", "plugins", "installs", "toolchains", "pyenv.d"}

// belongings are a folder of programs and what is installed with it.
func (m *Machine) belongings(dir string) []string {
	up := filepath.Dir(dir)
	switch {
	case !filepath.IsAbs(dir) || strings.Count(dir, "/") < 2 || m.private(dir):
		return nil
	case !slices.Contains(parts, filepath.Base(dir)) || strings.Count(up, "/") < 2 || m.private(up):
		return []string{dir}
	case filepath.Dir(up) != m.home:
		return []string{up}
	}
	var all []string
	for _, part := range parts {
		all = append(all, filepath.Join(up, part))
	}
	return all
}

// private tells whether showing dir would show what is not for functions.
func (m *Machine) private(dir string) bool {
	for _, p := range append([]string{m.home, "/tmp", "/var/tmp", "/run", "/proc", "/sys", "/dev", "/etc"}, m.secret...) {
		if p != "" && (within(p, []string{dir}) || p != m.home && within(dir, []string{p})) {
			return true
		}
	}
	return false
}

// within tells whether path is one of dirs or below it.
func within(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Limits of one process. What they mean together is the cgroup's.
const (
	filesMax    = 65536
	fileSizeMax = 4 << 30
)

func (m *Machine) limits(w Wish) []uint64 {
	limits := []uint64{unix.RLIMIT_CORE, 0, unix.RLIMIT_NOFILE, filesMax, unix.RLIMIT_FSIZE, fileSizeMax, unix.RLIMIT_MEMLOCK, 8 << 20}
	if w.Processes > 0 && m.Namespaces != NoNamespaces { // else it would count all processes of the node's user
		limits = append(limits, unix.RLIMIT_NPROC, uint64(w.Processes))
	}
	return limits
}
