package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process/egress"
	"github.com/quipu-run/quipu/process/lifeline"
)

// Namespaces says in which way an instance gets namespaces of its own.
type Namespaces int

const (
	NoNamespaces   Namespaces = iota
	RootNamespaces            // the node is root; the function becomes another user of the machine
	UserNamespaces            // with a user namespace; anybody may have that where the kernel permits it
)

// Ids that functions get on the machine if the node is root: a range that nobody else hands out (systemd's UIDS-GIDS lists them all), or, in a
// container that has fewer, its highest.
const (
	idBaseWanted = 0x70000000
	idCount      = 1 << 14
)

// Machine is what can be had here. The zero value has nothing.
type Machine struct {
	Namespaces Namespaces
	Seccomp    bool

	egress   error // why there is no way out
	landlock int   // version
	idBase   int   // 0: functions are the node's own user
	lastCap  int
	home     string
	stage    string
	search   []string // folders of programs outside of the system's
	secret   []string // folders that functions must not see, whatever holds them
	base     []lifeline.Mount
}

// Look finds out what can be known without a trial. Roots are put together on stage, an empty folder. Programs are searched in path. No
// function sees the private folders.
func Look(stage, path string, private []string) *Machine {
	m := &Machine{stage: stage, secret: private, Seccomp: seccompAction("errno"), egress: egress.Probe(), lastCap: 40}
	if version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno == 0 {
		m.landlock = int(version)
	}
	if text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n < 64 {
			m.lastCap = n
		}
	}
	if os.Geteuid() == 0 {
		m.idBase = idBase()
	}
	m.home, _ = os.UserHomeDir() // none: then there is none to keep from functions
	m.search = m.searched(path)
	m.base = m.baseMounts(private)
	return m
}

func seccompAction(name string) bool {
	known, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	return err == nil && bytes.Contains(known, []byte(name))
}

// idBase is the first of idCount ids that the node may give, 0 if it may not.
func idBase() int {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return 0
	}
	best := 0
	for line := range strings.Lines(string(text)) {
		var first, outside, count int
		if _, err := fmt.Sscan(line, &first, &outside, &count); err != nil {
			continue
		}
		if first <= idBaseWanted && first+count >= idBaseWanted+idCount {
			return idBaseWanted
		}
		if count > idCount && first+count-idCount > 1000 {
			best = max(best, first+count-idCount-2) // not nobody
		}
	}
	return best
}

// Attributes are those of the helper's process for instance number n.
func (m *Machine) Attributes(n int) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if m.Namespaces == NoNamespaces {
		return attr
	}
	attr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET
	if m.Namespaces == RootNamespaces {
		return attr
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	if m.idBase == 0 { // one id can be mapped, and it keeps its rights over the namespaces as ambient capabilities
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: inside, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: inside, HostID: os.Getegid(), Size: 1}}
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP}
		return attr
	}
	// The helper is root within, to reach what root owns while it makes the root; the function is nobody that the machine knows.
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: inside, HostID: m.idBase + n%idCount, Size: 1}}
	attr.UidMappings, attr.GidMappings, attr.GidMappingsEnableSetgroups = ids, ids, true
	return attr
}

// becomes is the id that the helper changes to before it starts the function; 0 if it is that already.
func (m *Machine) becomes(n int) uint64 {
	switch {
	case m.Namespaces == RootNamespaces && m.idBase > 0:
		return uint64(m.idBase + n%idCount)
	case m.Namespaces == UserNamespaces && m.idBase > 0:
		return inside
	}
	return 0
}

// Layers tells what is active. network is why there is no way out, if so.
func (m *Machine) Layers(why error) []quipu.Layer {
	reason := func(ok bool, yes, no string) (bool, string) {
		if !ok && why != nil {
			no += ": " + why.Error()
		}
		if ok {
			return true, yes
		}
		return false, no
	}
	var layers []quipu.Layer
	add := func(name string, ok bool, text string) {
		layers = append(layers, quipu.Layer{Name: name, Active: ok, Text: text})
	}
	how := "user, mount, pid, ipc, uts, net"
	if m.Namespaces == RootNamespaces {
		how = "mount, pid, ipc, uts, net; a user of its own"
	}
	ok, text := reason(m.Namespaces != NoNamespaces, how, "not permitted")
	add(quipu.LayerNamespaces, ok, text)
	add(quipu.LayerLandlock, m.landlock > 0, fmt.Sprintf("version %d", m.landlock))
	add(quipu.LayerSeccomp, m.Seccomp, fmt.Sprintf("%d system calls refused", len(refused)+len(absent)))
	add(quipu.LayerCapabilities, true, "none; no new privileges")
	switch {
	case m.Namespaces == NoNamespaces:
		add(quipu.LayerNetwork, false, "functions share the machine's network")
	case m.egress != nil || !m.Seccomp:
		add(quipu.LayerNetwork, false, fmt.Sprintf("functions reach nothing but their own doors: %v", m.egress))
	default:
		add(quipu.LayerNetwork, true, "by the function's policy")
	}
	return append(layers, quipu.Layer{Name: quipu.LayerLimits, Active: true, Text: "files, size of files, processes, core dumps"})
}
