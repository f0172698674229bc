package sandbox

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What is shown of a folder of programs is what they need, and never what may hold secrets.
func TestProgramsAreShownWithTheirLibrariesAndNothingElse(t *testing.T) {
	m := &Machine{home: "/home/u", secret: []string{"/srv/node/data"}}
	of := func(up string) (all []string) {
		for _, part := range parts {
			all = append(all, up+"/"+part)
		}
		return all
	}
	for dir, want := range map[string][]string{
		"/home/u/.nvm/versions/node/v20/bin": {"/home/u/.nvm/versions/node/v20"},
		"/home/u/.pyenv/shims":               of("/home/u/.pyenv"),
		"/home/u/.docker/bin":                of("/home/u/.docker"), // beside its config.json
		"/home/u/bin":                        {"/home/u/bin"},
		"/home/u/src/tools":                  {"/home/u/src/tools"},
		"/srv/node/bin":                      {"/srv/node/bin"}, // the data directory is beside it
		"/srv/tools/bin":                     {"/srv/tools"},
		"/site/bin":                          {"/site/bin"},
		"/srv/node/data/bin":                 nil,
		"/home/u":                            nil,
		"/home":                              nil,
		"/tmp/x/bin":                         nil,
		"/etc/alternatives":                  nil,
		"bin":                                nil,
		".":                                  nil,
	} {
		if got := m.belongings(dir); !slices.Equal(got, want) {
			t.Errorf("%s shows %q, want %q", dir, got, want)
		}
	}
}

// verdict runs the filter on a system call, in the byte order of bpf.VM.
func verdict(t *testing.T, arch, number uint32, arg0 uint64) uint32 {
	t.Helper()
	var program []bpf.Instruction
	for code := filter(false); len(code) > 0; code = code[8:] {
		program = append(program, bpf.RawInstruction{Op: binary.NativeEndian.Uint16(code), Jt: code[2], Jf: code[3], K: binary.NativeEndian.Uint32(code[4:])}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	data := binary.BigEndian.AppendUint32(nil, number)
	data = binary.BigEndian.AppendUint32(data, arch)
	data = append(data, make([]byte, 8)...) // instruction pointer
	data = binary.BigEndian.AppendUint32(data, uint32(arg0))
	data = binary.BigEndian.AppendUint32(data, uint32(arg0>>32))
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

func TestTheFilterRefusesWhatItLists(t *testing.T) {
	const eperm, enosys = retErrno | uint32(unix.EPERM), retErrno | uint32(unix.ENOSYS)
	for _, n := range refused {
		if got := verdict(t, auditArch, n, 0); got != eperm {
			t.Errorf("system call %d: %#x", n, got)
		}
	}
	for _, c := range []struct {
		what         string
		arch, number uint32
		arg          uint64
		want         uint32
	}{
		{"read", auditArch, unix.SYS_READ, 0, retAllow},
		{"execve", auditArch, unix.SYS_EXECVE, 0, retAllow},
		{"a thread", auditArch, unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_THREAD, retAllow},
		{"a process in a user namespace", auditArch, unix.SYS_CLONE, unix.CLONE_NEWUSER | uint64(unix.SIGCHLD), eperm},
		{"a process in a network namespace", auditArch, unix.SYS_CLONE, unix.CLONE_NEWNET, eperm},
		{"clone3", auditArch, unix.SYS_CLONE3, 0, enosys},
		{"io_uring_setup", auditArch, unix.SYS_IO_URING_SETUP, 0, enosys},
		{"what is newer than the list", auditArch, newestKnown + 1, 0, enosys},
		{"a call of x32", auditArch, 0x40000000 | unix.SYS_READ, 0, enosys},
		{"a socket of the internet", auditArch, unix.SYS_SOCKET, unix.AF_INET6, retAllow},
		{"a Unix socket", auditArch, unix.SYS_SOCKET, unix.AF_UNIX, retAllow},
		{"a packet socket", auditArch, unix.SYS_SOCKET, unix.AF_PACKET, retErrno | uint32(unix.EAFNOSUPPORT)},
		{"a socket of the kernel's ciphers", auditArch, unix.SYS_SOCKET, unix.AF_ALG, retErrno | uint32(unix.EAFNOSUPPORT)},
		{"another architecture", auditArch + 1, unix.SYS_READ, 0, retKill},
	} {
		if got := verdict(t, c.arch, c.number, c.arg); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.what, got, c.want)
		}
	}
}
