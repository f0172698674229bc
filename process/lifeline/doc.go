// Package lifeline is the small process that stands between the node and one instance.
//
//	node ── socket ── helper (this package, the node's own binary) ── function ── whatever it starts
//
// The helper starts the function and then waits for two things: the end of the function, and the
// end of the socket. The kernel closes the node's end of the socket however the node dies, SIGKILL
// included, and then the helper kills the function and everything descended from it. On Linux it
// is a child subreaper, so that a process which forks away, calls setsid or becomes a daemon ends up as the
// helper's child and is found; the function itself also dies with the helper (Pdeathsig).
// Elsewhere only the function's process group is killed.
//
// # Taking over early
//
// The helper is the node's binary, re-executed. It must not pay for the initialisation of
// every package in that binary. This package therefore works in its init function and imports
// nothing beyond syscall and unsafe: the language initialises packages in the order of their import
// paths as their imports become ready, and after syscall ours is ready before fmt, os, net and
// everything that needs those (a test pins the imports). It also means that a binary, a test binary included, has the helper as soon as it imports package process.
//
// # Protocol
//
// Node to helper: one request (Request.Encode), then any number of bytes SignalTerm, then the end of the
// stream, which means kill. Helper to node: one line 'P<pid>' or 'E<errno>', and after the function
// and all its descendants are gone 'X<wait status>'. An end of stream without 'X' means that the helper
// itself was killed; whoever holds the other end must then look for survivors.
package lifeline

// Env makes a process that starts with it a helper. Its value is the helper's socket.
const (
	Env   = "QUIPU_LIFELINE"
	EnvFD = "3"
)

// SignalTerm asks the helper to send SIGTERM to the function's process group.
const SignalTerm = 'T'

// requestBytesMax bounds a request; the kernel's own limit for arguments and environment is lower.
const requestBytesMax = 8 << 20

// Request says what to run. Path is absolute; nothing is looked up.
type Request struct {
	Path string
	Dir  string
	Args []string // with the name of the program
	Env  []string
}

// Encode is the byte form: a length, then each string with a zero byte behind it: path, dir, args, an
// empty string, env. No string holds a zero byte, and an argument that is empty is written as "\x01".
func (r Request) Encode() []byte {
	buf := make([]byte, 4, 4096)
	add := func(s string) { buf = append(append(buf, s...), 0) }
	add(r.Path)
	add(r.Dir)
	for _, a := range r.Args {
		if a == "" {
			a = "\x01"
		}
		add(a)
	}
	add("")
	for _, e := range r.Env {
		add(e)
	}
	putLength(buf, len(buf)-4)
	return buf
}

// decode is the inverse of Encode without the length.
func decode(buf []byte) (Request, bool) {
	var r Request
	var fields []string
	for start, i := 0, 0; i < len(buf); i++ {
		if buf[i] == 0 {
			fields = append(fields, string(buf[start:i]))
			start = i + 1
		}
	}
	if len(fields) < 4 {
		return r, false
	}
	r.Path, r.Dir, fields = fields[0], fields[1], fields[2:]
	for len(fields) > 0 && fields[0] != "" {
		if fields[0] == "\x01" {
			fields[0] = ""
		}
		r.Args = append(r.Args, fields[0])
		fields = fields[1:]
	}
	if len(fields) == 0 || len(r.Args) == 0 {
		return r, false
	}
	r.Env = fields[1:]
	return r, true
}

func putLength(b []byte, n int) {
	b[0], b[1], b[2], b[3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
}

func length(b []byte) int {
	return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 | int(b[3])<<24
}
