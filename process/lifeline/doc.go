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
// # Walls
//
// A request may ask for walls (type Walls): then the helper was started as the first process of namespaces of its own, and before it
// starts the function it makes their loopback, their root folder and their limits, and gives up on its main thread what the
// function must not have. A function inherits from the thread that starts it. What the walls should be is decided by package
// sandbox; here are only the steps.
//
// # Protocol
//
// Node to helper: one request (Request.Encode, in packets of at most PacketMax), then any number of packets SignalTerm and
// Dial, then the end of the stream, which means kill. Helper to node, a line each: 'L' with one file, a listener, for each of
// Walls.Ports; 'N' with the listener of the seccomp filter, if it notifies; 'P<pid>', the pid as the helper sees it, or 'E<errno>' and
// the number of the step that failed; for each Dial 'C0' with a file, a connection that may still be under way, or 'C<errno>';
// and after the function and all its descendants are gone 'X<wait status>'. An end of stream without 'X' means that the helper
// itself was killed; whoever holds the other end must then look for survivors.
package lifeline

// Env makes a process of this binary that starts with it a helper, with EnvFD, its socket, as the value.
const (
	Env   = "QUIPU_LIFELINE"
	EnvFD = "3"
)

// Packets of the node. A dial is followed by one byte, DialSocket or DialPort.
const (
	SignalTerm = 'T' // send SIGTERM to the function's process group
	Dial       = 'D' // connect to where the function listens, from within its walls
	DialSocket = 'u'
	DialPort   = 't'
)

// PacketMax bounds a packet of a request. A socket takes at least three times as much.
const PacketMax = 64 << 10

// requestBytesMax bounds a request; the kernel's own limit for arguments and environment is lower.
const requestBytesMax = 8 << 20
